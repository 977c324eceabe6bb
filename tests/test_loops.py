"""What loops and deployments do around a layer: change in place, checkpoint, compile, export, infer and go on."""

import copy
import io

import pytest
import torch
from layers import LAYERS, every_kind_and_mode, every_layer_and_mode, every_traced, every_traced_and_mode, first
from torch.utils.checkpoint import checkpoint

import normkernels as nk

# whose statistics a call that is made again moves again
LIKE_TORCH = ("BatchNorm", "SyncBatchNorm", "InstanceNorm", "DataNorm")
OF_THEIR_OWN = ("BatchRenorm", "OnlineNorm", "StreamingNorm")
STATEFUL = [layer for layer in LAYERS if layer.name in [f"{name}2d" for name in OF_THEIR_OWN]]


def batch_dim(layer) -> int:
    return int(layer.name.endswith(("RNN", "LSTM", "GRU")))


def batches(layer, sizes=(4, 5, 7)):
    """Inputs with that many samples."""
    dim = batch_dim(layer)
    shape = list(layer.shape)
    for size in sizes:
        shape[dim] = size
        yield torch.randn(shape, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


def layouts(x):
    """x, channels_last where that is something else, and lying with its dims in reverse order."""
    yield x
    if x.dim() > 2:
        yield x.movedim(1, -1).contiguous().movedim(-1, 1)
    yield x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))


def step(module, x):
    """(y, dx, gradients of the parameters) of a training step on a copy of x in its layout."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = first(module(x))
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]


def close(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@every_layer_and_mode
def test_changed_in_place(layer, training):
    """An in-place ReLU after the layer, in every layout."""
    if layer.name.startswith("NormProp"):
        pytest.skip("its activation keeps its output, as torch's do: see below")
    for x in layouts(layer.input(torch.float64)):
        results = []
        for relu in (torch.relu, torch.relu_):
            module = layer.used(training)
            results.append(step(torch.nn.Sequential(module, _First(), _Apply(relu)), x))
        close(*results)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer.name.startswith("NormProp")], ids=str)
def test_changed_in_place_after_an_activation(layer):
    """Where the output tells the slope it is kept, and a change is an error, as after torch.tanh; else it is free."""
    for activation in ("identity", "gelu", "tanh"):
        results = []
        for relu in (torch.relu, torch.relu_):
            module = torch.nn.Sequential(layer.used(activation=activation), _Apply(relu))
            if activation == "tanh" and relu is torch.relu_:
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    step(module, layer.input(torch.float64))
            else:
                results.append(step(module, layer.input(torch.float64)))
        close(results[0], results[-1])


class _First(torch.nn.Module):
    def forward(self, outputs):
        return first(outputs)


class _Apply(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class _Checkpointed(torch.nn.Module):
    def __init__(self, module, reentrant=False):
        super().__init__()
        self.module, self.reentrant = module, reentrant

    def forward(self, x):
        return checkpoint(lambda x: torch.tanh(first(self.module(x))), x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True], ids=["new", "reentrant"])
@every_layer_and_mode
def test_checkpoint(layer, training, reentrant):
    """Gradients and state are those of the plain step."""
    plain, checked = layer.used(training), layer.used(training)
    x = layer.input(torch.float64)
    for _ in range(2):
        want = step(torch.nn.Sequential(plain, _First(), torch.nn.Tanh()), x)
        close(step(_Checkpointed(checked, reentrant), x), want)
    if not layer.name.startswith(LIKE_TORCH):
        close(checked.buffers(), plain.buffers())


@every_traced
def test_compiled_checkpoint(layer):
    """The same in a compiled step: what is computed again must see the state that the call met."""
    torch._dynamo.reset()
    plain, checked = layer.used(), layer.used()
    compiled = torch.compile(_Checkpointed(checked), fullgraph=True, backend="aot_eager")
    for x in batches(layer, (4, 4, 4)):
        want = step(torch.nn.Sequential(plain, _First(), torch.nn.Tanh()), x)
        close(step(compiled, x), want)
    close(checked.buffers(), plain.buffers())


@pytest.mark.parametrize("layer", STATEFUL, ids=str)
def test_compiled_checkpoint_by_inductor(layer):
    """Inductor leaves copies out; not those of a state."""
    torch._dynamo.reset()
    plain, checked = layer.used(), layer.used()
    compiled = torch.compile(_Checkpointed(checked), fullgraph=True)
    for x in batches(layer, (4, 4)):
        want = step(torch.nn.Sequential(plain, _First(), torch.nn.Tanh()), x)
        close(step(compiled, x), want)
    close(checked.buffers(), plain.buffers())


@every_traced_and_mode
def test_compiled_for_every_batch_size(layer, training):
    """One graph with a symbol for the batch, forward and backward; beside a state with symbols for all numbers."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    plain, other = layer.used(training), layer.used(training)
    numbers_too = layer.name.startswith(OF_THEIR_OWN) or None
    compiled = torch.compile(other, fullgraph=True, backend=backend, dynamic=numbers_too)
    made = 0  # by the first call, which may start again
    for x in batches(layer):
        want = step(plain, x)
        x = x.requires_grad_()
        torch._dynamo.mark_dynamic(x, batch_dim(layer))
        other.zero_grad()
        y = first(compiled(x))
        y.square().sum().backward()
        close([y.detach(), x.grad, *(p.grad for p in other.parameters() if p.grad is not None)], want)
        made = made or len(graphs)
    assert len(graphs) == made


@every_kind_and_mode
def test_exported(layer, training):
    """With a dynamic batch, saved, loaded, and run in grad mode: the values and the state of the layer itself."""
    module, twin = layer.used(training), layer.used(training)
    dim = batch_dim(layer)
    x, other = batches(layer, (4, 7))
    program = torch.export.export(module, (x,), dynamic_shapes=({dim: torch.export.Dim("batch", min=2, max=64)},))
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    loaded = torch.export.load(saved).module()
    close([first(loaded(other))], [first(twin(other))])
    state = dict(twin.named_buffers())
    for name, t in loaded.named_buffers():
        torch.testing.assert_close(t, state[name], rtol=1e-9, atol=1e-9)


@every_kind_and_mode
def test_gradients_of_exported_programs(layer, training):
    """The kernels say that they have none; the reference, where it is the derivative, gives it."""
    module, x = layer.used(training), layer.input(torch.float64)
    y = first(torch.export.export(copy.deepcopy(module), (x,)).module()(x.clone().requires_grad_()))
    with pytest.raises(RuntimeError, match="has no gradient in an exported program"):
        y.sum().backward()
    if training and layer.name.removeprefix("Sync").startswith(("OnlineNorm", "StreamingNorm")):
        return
    with nk.use_backend("reference"):
        program = torch.export.export(copy.deepcopy(module), (x,)).module()
        want = step(module, x)
    x = x.clone().requires_grad_()
    y = first(program(x))
    y.square().sum().backward()
    close([y.detach(), x.grad], want[:2])


@every_traced
def test_twice_in_one_compiled_graph(layer):
    """The same tensor in two calls of one module."""
    torch._dynamo.reset()
    module, twin = layer.used(), layer.used()

    def twice(module):
        return lambda x: first(module(x)).sum() + first(module(x)).square().sum()

    results = []
    for f in (twice(twin), torch.compile(twice(module), fullgraph=True, backend="aot_eager")):
        x = layer.input(torch.float64).requires_grad_()
        f(x).backward()
        results.append(x.grad)
    close(*[[g] for g in results])
