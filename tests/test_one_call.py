"""A layer is one call in Dynamo's graph: guarded by no more than its twin of torch.nn, and by all that it reads."""

import contextlib
import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend, EagerAndRecordGraphs

import normkernels as nk
from normkernels.conversion.twins import PLAIN, TWINS
from normkernels.modules import _one_call
from normkernels.ops import _whole

ARGS = {nk.GroupNorm: (2, 8)}
# the classes of a kind differ in the check of their ranks alone: to compile one of each kind is enough
KINDS = [nk.BatchNorm2d, nk.InstanceNorm3d, nk.GroupNorm, nk.LayerNorm, nk.RMSNorm]
every_twin = pytest.mark.parametrize(("twin", "kind"), TWINS.items(), ids=[t.__name__ for t in TWINS])
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[k.__name__ for k in KINDS])


class Checked(nk.BatchNorm2d):
    """Of another library: what it reads is not known."""

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() == 3


def compiled(call: Callable[..., Tensor], backend: Any = "eager"):
    """By default as Dynamo sees it: what it guards does not depend on who compiles the graph."""
    torch._dynamo.reset()
    return torch.compile(call, backend=backend, fullgraph=True)


def made(kind: type[nn.Module], **switches) -> nn.Module:
    return kind(*ARGS.get(kind, (2, 8) if kind is nn.GroupNorm else (8,)), **switches)


def image(kind: type[nn.Module]) -> Tensor:
    return torch.randn(6, 8, *{"1": (5,), "2": (3, 5), "3": (2, 3, 3)}.get(kind.__name__[-2], ()))


def same(call: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> None:
    """What a compiled call of the layer gives, and leaves in its buffers, is what a copy does that is not compiled."""
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(call(x), twin(x))
    torch.testing.assert_close(dict(layer.named_buffers()), dict(twin.named_buffers()))


def guards(kind: type[nn.Module], training: bool) -> int:
    """Of a net of four."""
    net = nn.Sequential(*(made(kind) for _ in range(4))).train(training)

    def run(x: Tensor) -> Tensor:
        return net(x)

    with torch.set_grad_enabled(training):
        compiled(run)(image(kind))
    (entry,) = torch._dynamo.eval_frame._debug_get_cache_entry_list(run.__code__)
    return str(entry.guard_manager).count("+- ")


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@every_kind
def test_no_more_guards_than_its_twin(kind, training):
    assert guards(kind, training) <= guards(PLAIN[kind], training)


def freeze(m: nn.Module) -> None:
    m.freeze(affine=False) if hasattr(m, "freeze") and m.running_mean is not None else setattr(m, "eps", 0.5)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "eps": lambda m: setattr(m, "eps", 0.1),
    "activation": lambda m: setattr(m, "activation", "relu"),
    "weight": lambda m: setattr(m, "weight", nn.Parameter(torch.rand(8, dtype=torch.float32))),
    "no weight": lambda m: m.register_parameter("weight", None),
    "a bias": lambda m: setattr(m, "bias", nn.Parameter(torch.rand(8))),
    "eval": lambda m: m.eval(),
    "frozen": freeze,
    "momentum": lambda m: setattr(m, "momentum", 0.5),
}


@every_kind
def test_what_changes_is_seen(kind):
    """Compiled again where the layer has changed: the numbers are those of the layer that is there."""
    layer, x = made(kind), image(kind)
    same(compiled(lambda x: layer(x), "aot_eager"), layer, x)
    call = compiled(lambda x: layer(x))
    same(call, layer, x)
    for change in CHANGES.values():
        with undone(layer):
            change(layer)
            same(call, layer, x)
    same(call, layer, x)


@contextlib.contextmanager
def undone(layer: nn.Module) -> Iterator[None]:
    """What was set in it is as before: it is still the same module, so a change is all that a guard can see."""
    held, tensors = vars(layer).copy(), {name: dict(vars(layer)[name]) for name in ("_parameters", "_buffers")}
    yield
    vars(layer).clear()
    vars(layer).update(held)
    for name, kept in tensors.items():
        vars(layer)[name].update(kept)


@every_twin
def test_a_copy_is_the_same_graph(twin, kind):
    """Which says what the layer says, whether it was copied, pickled, or was one of torch.nn."""
    layer, was = made(kind, eps=0.1).eval(), made(twin, eps=0.1).eval()
    nk.convert(was)
    assert layer._said == copy.deepcopy(layer)._said == pickle.loads(pickle.dumps(layer))._said == was._said
    nk.revert(was)
    assert not hasattr(was, "_said")


def test_a_layer_of_another_class_is_looked_into():
    layer, x = Checked(8), torch.randn(6, 8, 3)
    assert layer._said is None
    same(compiled(lambda x: layer(x)), layer, x)


def test_a_cumulative_average_is_looked_into():
    layer, x = nk.BatchNorm1d(8, momentum=None), torch.randn(6, 8)
    torch._dynamo.reset()
    call = torch.compile(lambda x: layer(x), backend="eager")
    for _ in range(2):
        same(call, layer, x)


def test_one_graph_for_one_layer():
    """What it does not read, and what comes back, is no other one."""
    counter = CompileCounterWithBackend("eager")
    layer, x = nk.LayerNorm(8), torch.randn(6, 8)
    call = compiled(lambda x: layer(x), counter)
    for eps, training in ((1e-5, True), (1e-3, True), (1e-5, False)):
        layer.train(training).eps = eps
        torch.testing.assert_close(call(x), copy.deepcopy(layer)(x))
    assert counter.frame_count == 2


def test_another_backend_is_another_graph():
    counter = CompileCounterWithBackend("aot_eager")
    layer, x = nk.GroupNorm(2, 8), torch.randn(6, 8, 5)
    call = compiled(lambda x: layer(x), counter)
    for name in (None, "reference", None, "reference"):
        with nk.use_backend(name):
            same(call, layer, x)
    assert counter.frame_count == 2


@pytest.mark.parametrize("torch_is", ["without the name", "older"])
@every_kind
def test_looked_into_by_other_versions(kind, torch_is, monkeypatch):
    """Where Dynamo does not know the name by which it is led elsewhere, or may not put a call into its graph."""
    layer, x, graphs = made(kind), image(kind), EagerAndRecordGraphs()
    if torch_is == "older":
        for module in (_one_call, _whole):  # nor a function that the layer calls
            monkeypatch.setattr(module, "allowed", lambda: False)
    else:
        monkeypatch.delattr(kind.forward, "_torchdynamo_inline")
    call = compiled(lambda x: layer(x), graphs)
    same(call, layer, x)
    with undone(layer):
        layer.eps = 0.1
        same(call, layer, x)
    assert len(graphs.graphs) == 2
    assert not any(node.target is _one_call._layer for graph in graphs.graphs for node in graph.graph.nodes)


def test_changed_while_it_is_traced():
    """A layer that a compiled function changes is looked into from then on."""
    layer, x = nk.LayerNorm(8), torch.randn(6, 8)

    def run(x: Tensor) -> Tensor:
        layer.eps = 0.5
        return layer(x)

    torch.testing.assert_close(compiled(run)(x), nk.LayerNorm(8, eps=0.5)(x))
