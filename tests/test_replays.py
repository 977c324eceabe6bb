"""Calls that are made again without Python, for every layer: the bits of Python's way."""

import warnings

import pytest
import torch
from layers import every_layer, every_trained_layer, output
from replays import replayed, warm
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from normkernels import _replays

pytestmark = pytest.mark.skipif(_replays.extension is None, reason=f"no replays: {_replays.missing}")
STEPS = 6  # the first calls go through Python, the later ones do not
BY_PYTHON = ("BatchNormRNN", "BatchNormLSTM")  # in part: the norm of the input's term is no public function


def steps(module: nn.Module, inputs: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """All that some training steps can be seen to do."""
    found: list[torch.Tensor | None] = []
    for x in inputs:
        x = x.clone().requires_grad_()
        module.zero_grad()
        y = output(module, x)
        y.square().sum().backward()
        with torch.no_grad():
            for p in module.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad
        found += [y.detach(), x.grad, *(p.grad for p in module.parameters())]
    return [*found, *module.state_dict().values()]


def python_alone(monkeypatch) -> None:
    monkeypatch.setattr(_replays, "replay", lambda *_: None)


@every_layer
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_same_as_python(layer, training, dtype, monkeypatch):
    inputs = [layer.input(dtype, seed) for seed in range(STEPS)]
    ours = layer.make(dtype=dtype).train(training)
    ours.load_state_dict(layer.make(dtype=dtype).state_dict())
    found = steps(ours, inputs)
    python_alone(monkeypatch)
    for a, b in zip(found, steps(layer.make(dtype=dtype).train(training), inputs), strict=True):
        assert a is b is None or (a.dtype == b.dtype and torch.equal(a, b))


@every_trained_layer
def test_is_replayed(layer):
    """So that what the tests here see is the replay."""
    assert replayed(warm(layer.make(), layer.input().requires_grad_())) is not (layer.name in BY_PYTHON)


@every_trained_layer
def test_of_nothing(layer, monkeypatch):
    """Empty buffers have no address."""
    if layer.name.startswith("NormProp"):
        pytest.skip("refuses an empty batch")
    x = layer.input(torch.float64)
    x = x[:, :0] if len(layer.args) > 1 and layer.shape == (5, 6, 4) else x[:0]  # recurrent layers: (steps, batch, *)
    module = layer.make(dtype=torch.float64)
    found = warm(module, x.requires_grad_())
    python_alone(monkeypatch)
    assert torch.equal(output(layer.make(dtype=torch.float64), x).detach(), found.detach())


@every_trained_layer
def test_without_a_gradient(layer, monkeypatch):
    module, x = layer.used().eval(), layer.input(torch.float64)
    with torch.inference_mode():
        found = warm(module, x)
    with torch.no_grad():
        assert torch.equal(warm(module, x), found)
    python_alone(monkeypatch)
    assert torch.equal(output(module, x).detach(), found)


@every_trained_layer
def test_what_looks_at_a_backward(layer, monkeypatch):
    """Hooks of tensors, of nodes and of what is saved; double backward; a second one; many at once; anomaly mode."""

    def looked(module):
        x = layer.input(torch.float64).requires_grad_()
        warm(module, x)
        seen: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: seen.append(t) or t * 1):
            y = output(module, x)
        y.register_hook(lambda g: g * 2)
        y.grad_fn.register_hook(lambda into, out: seen.extend(g for g in out if g is not None))
        first = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
        second = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
        if second.requires_grad:
            seen += torch.autograd.grad(second.square().sum(), x, allow_unused=True)
        with torch.autograd.detect_anomaly(check_nan=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = output(module, x)
            dys = torch.stack([torch.ones_like(y), 2 * y])
            many = [torch.autograd.grad(output(module, x), x, dys, is_grads_batched=True)[0] for _ in range(4)]
        return [first, second, *many, *(t for t in seen if t is not None)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anomaly mode says that it is slow
        found = looked(layer.used())
        python_alone(monkeypatch)
        expected = looked(layer.used())
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


@every_trained_layer
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(layer, reentrant, monkeypatch):
    def run(module):
        x = layer.input(torch.float64).requires_grad_()
        warm(module, x)
        found = []
        for _ in range(STEPS):
            y = checkpoint(lambda x: output(module, x), x, use_reentrant=reentrant)
            found.append(torch.autograd.grad(y.sum(), x)[0] if not reentrant else y.detach())
        return [*found, *module.state_dict().values()]

    found = run(layer.used())
    python_alone(monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(found, run(layer.used()), strict=True))


@every_trained_layer
def test_a_second_backward(layer):
    """Through a graph that is kept: it starts where the first, a replay, did."""
    module, x = layer.used(), layer.input(torch.float64).requires_grad_()
    y = warm(module, x)
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    moved = [b.clone() for b in module.buffers()]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], first)
    assert all(map(torch.equal, moved, module.buffers()))


@every_trained_layer
def test_modes(layer, monkeypatch):
    """A mode that looks at torch's ops sees those of Python's way, forward and backward."""

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.name())
            return func(*args, **(kwargs or {}))

    def seen(module):
        x = layer.input().requires_grad_()
        warm(module, x)
        names.clear()
        with Seen():
            torch.autograd.grad(output(module, x).sum(), x)
        return names[:]

    names: list[str] = []
    found = seen(layer.make())
    python_alone(monkeypatch)
    assert found == seen(layer.make()) != []
