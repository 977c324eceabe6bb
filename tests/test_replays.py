"""Calls that are made again: a replay gives what Python gives, to the bit, and is used only where it may be."""

import os
import resource
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import normkernels as nk
from normkernels import _replays
from normkernels.functional import batch_norm, layer_norm
from normkernels.ops.layer_norm import LayerNormRecipe
from tests.layers import every_layer, every_trained_layer, output

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


def replayed(y: torch.Tensor) -> bool:
    """Whether all nodes of recipes behind y are the extension's."""
    known, left = [], [y.grad_fn]
    while left:
        node = left.pop()
        if node is not None:
            left += [n for n, _ in node.next_functions]
            known += [type(node).__name__ == "CppFunction"] if node.name().endswith("RecipeBackward") else []
    return bool(known) and all(known)


def warm(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The output of a call that was made, with its backward, often enough to be replayed."""
    for _ in range(4):
        y = output(module, x)
        if y.requires_grad:
            torch.autograd.grad(y.sum(), x, allow_unused=True)
    return output(module, x)


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


def test_backward_twice():
    x = torch.randn(3, 4, requires_grad=True)
    y = warm(nk.LayerNorm(4), x)
    assert replayed(y)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_errors_keep_their_type(monkeypatch):
    x = torch.randn(3, 4, requires_grad=True)
    y = warm(nk.LayerNorm(4), x)

    def wrong(*_):
        raise KeyError("of its own")

    monkeypatch.setattr(LayerNormRecipe, "backward", wrong)
    with pytest.raises(KeyError, match="of its own"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_what_was_kept_has_changed():
    module, x = nk.LayerNorm(4), torch.randn(3, 4, requires_grad=True)
    y = warm(module, x * 1)
    with torch.no_grad():
        module.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_state_that_moves_says_so():
    """Its version counts, so that autograd notices whoever kept it."""
    module, x = nk.BatchNorm1d(4), torch.randn(5, 4, requires_grad=True)
    warm(module, x)
    kept = (module.running_mean * torch.ones(4, requires_grad=True)).sum()
    assert replayed(output(module, x))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.backward()


def test_the_key():
    """Whatever steers a call: strides, who wants a gradient, the same tensor twice, numbers, names, the backend."""
    w, b = torch.randn(4), torch.randn(4)
    x, r = torch.randn(4, 4), torch.randn(4, 4)
    calls = [
        lambda f: f(x, (4,), w, b), lambda f: f(x.t(), (4,), w, b), lambda f: f(x, [4], w, b), lambda f: f(x, 4, w, b),
        lambda f: f(x, (4,), w, b, 0.5), lambda f: f(x, (4,), w), lambda f: f(x, (4,), bias=b),
        lambda f: f(x, (4,), w, b, activation="relu"), lambda f: f(x, (4,), w, b, activation="".join(["si", "lu"])),
        lambda f: f(x, (4,), w, b, residual=x)[0], lambda f: f(x, (4,), w, b, residual=r)[0],
        lambda f: f(x, (4,), w, w), lambda f: f(x[1:], (4,), w, b), lambda f: f(x.double(), (4,)),
        lambda f: f(x.requires_grad_(), (4,), w, b), lambda f: f(x, (4,), w.requires_grad_(), b),
    ]  # fmt: skip
    for _ in range(4):
        for call in calls:
            found, expected = call(layer_norm), call(layer_norm.__wrapped__)
            assert torch.equal(found, expected)
            assert found.requires_grad is expected.requires_grad
            x, w = x.detach(), w.detach()
    with nk.use_backend("reference"), pytest.raises(ValueError, match="backend"):
        layer_norm(x, (4,), backend="no such")


def test_which_gradients_are_wanted():
    module, x = nk.LayerNorm(4), torch.randn(3, 4, requires_grad=True)
    leaves = [x, module.weight, module.bias]
    expected = torch.autograd.grad(layer_norm.__wrapped__(x, (4,), *leaves[1:]).cos().sum(), leaves)
    for wanted in [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)] * 4:
        found = torch.autograd.grad(module(x).cos().sum(), [leaves[i] for i in wanted])
        for i, grad in zip(wanted, found, strict=True):
            assert torch.equal(grad, expected[i])


def test_a_kept_output_does_not_keep_itself():
    """The sum with a residual is returned, and kept for the backward: a circle, if it held its own node."""
    module, x = nk.LayerNorm(1024), torch.randn(1024, 1024, requires_grad=True)
    for i in range(60):
        if i == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert module(x, x)[1].requires_grad
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB; each sum is 4,096


def test_what_is_negated_when_it_is_read():
    """torch's lazy negation: the memory of such a tensor does not hold its numbers."""
    x, found = torch.randn(5, 4), []
    for public in (batch_norm, batch_norm.__wrapped__):
        mean = torch.arange(4).to(torch.complex64).mul(1j).conj().imag
        assert mean.is_neg()
        var = torch.ones(4)
        found.append([*(public(x, mean, var, training=True) for _ in range(6)), mean, var])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_failed_calls_stay_failed():
    module = nk.BatchNorm1d(4)
    warm(module, torch.randn(5, 4, requires_grad=True))
    before = module.running_mean.clone()
    for _ in range(4):
        with pytest.raises(ValueError, match="more than one value per channel"):
            module(torch.randn(1, 4))
    assert torch.equal(module.running_mean, before)


def test_transforms_and_compilers_after_a_replay():
    module, x = nk.LayerNorm(4).double(), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = warm(module, x)
    assert torch.allclose(torch.vmap(module)(x), y)
    assert torch.allclose(torch.func.grad(lambda x: module(x).square().sum())(x.detach()), grad_of(module, x))
    assert torch.allclose(torch.compile(module, fullgraph=True, backend="aot_eager")(x), y)
    assert replayed(output(module, x))


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


def grad_of(module, x):
    return torch.autograd.grad(module(x).square().sum(), x)[0]


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_compiled_autograd():
    module, x = nk.LayerNorm(4), torch.randn(3, 4, requires_grad=True)
    y = warm(module, x)
    expected = grad_of(module, x)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        (found,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.allclose(found, expected, atol=1e-6)


def test_threads():
    """Many at once, each with its own numbers."""
    module, bad = nk.LayerNorm(64).double(), []

    def work(seed):
        x = torch.randn(5, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        expected = nn.functional.layer_norm(x, (64,), module.weight, module.bias)
        gradient = torch.autograd.grad(expected.square().sum(), x)[0]
        for _ in range(200):
            y = module(x)
            bad.extend([] if torch.allclose(y, expected) else [seed])
            bad.extend([] if torch.allclose(torch.autograd.grad(y.square().sum(), x)[0], gradient) else [seed])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad


def test_numbers_that_change_are_not_learnt():
    """A cumulative average weighs each batch anew: no plan serves twice, so none is made."""
    made = []
    record = _replays.record
    module = nk.BatchNorm1d(4, momentum=None)
    try:
        _replays.record = lambda *args: made.append(1) or record(*args)
        for _ in range(20):
            module(torch.randn(5, 4))
    finally:
        _replays.record = record
    assert not made
    assert int(module.num_batches_tracked) == 20


SMALL = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "lerp": lambda a, b: torch.lerp(a, b, 0.3),
    "lerp from the end": lambda a, b: torch.lerp(a, b, 0.9),
    "clamp": lambda a, b: a.clamp(-0.5, 0.5),
    "abs": lambda a, b: a.abs(),
    "where": lambda a, b: torch.where(a < b, a, b),
    "where again": lambda a, b: torch.where(a < b, torch.stack([a, b]), a),
    "gt": lambda a, b: torch.where(a > b, a, b),
    "clone": lambda a, b: a.clone(),
    "convert": lambda a, b: (a - b).to(torch.float64) + (a * b).to(torch.float32),
    "view of one that goes": lambda a, b: (a + b)[:1] * (a - b)[-1:] + b,
    "in place": lambda a, b: (a * 2).add_(b).mul_(a),
    "alpha": lambda a, b: torch.add(a, b, alpha=2),
    "rounding": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "broadcast": lambda a, b: (a[:, None] + b[:1]) * a[:, None],
    "numbers": lambda a, b: (a * 1.1 - 0.3) / 0.7 + 2,
}


@pytest.mark.parametrize("op", SMALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_small_ops(op, dtype):
    """Those that the extension does itself, to the bit as torch; with what is not finite."""
    calls = _replays.calls()
    for n in (1, 2, 7, 8, 15, 16, 33, 128):
        for seed in range(4):
            torch.manual_seed(seed)
            given = torch.randn(n, dtype=dtype), torch.randn(n, dtype=dtype)
            if seed == 3:
                given[0][0] = float("nan")
                given[1][-1] = float("inf")
            expected = SMALL[op](*given)
            found = _replays.replay(calls, None, given, {})
            if isinstance(found, bytes):
                found = _replays.record(calls, found, SMALL[op], given, {})
            if found is not None:
                assert found.dtype == expected.dtype
                assert torch.equal(found.nan_to_num(), expected.nan_to_num())
                assert torch.equal(found.isnan(), expected.isnan())
    assert found is not None


def test_without_the_extension():
    code = (
        "import torch, normkernels as nk; from normkernels import _replays; nk.LayerNorm(4)(torch.randn(2, 4)); "
        "print(_replays.missing)"
    )
    environment = os.environ | {"NORMKERNELS_REPLAY": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "switched off" in done.stdout, done.stderr


def test_launches():
    """Of Triton's kernels a replay makes the same launches, with the same arguments; seen without a GPU."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.fake_launches"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
