"""What autograd, transforms and threads see of a replay."""

import resource
import threading

import pytest
import torch
from layers import output
from replays import replayed, warm
from torch import nn

import normkernels as nk
from normkernels import _replays
from normkernels.functional import layer_norm
from normkernels.ops._layer_norm_recipe import LayerNormRecipe

pytestmark = pytest.mark.skipif(_replays.extension is None, reason=f"no replays: {_replays.missing}")


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


def test_transforms_and_compilers_after_a_replay():
    module, x = nk.LayerNorm(4).double(), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = warm(module, x)
    assert torch.allclose(torch.vmap(module)(x), y)
    assert torch.allclose(torch.func.grad(lambda x: module(x).square().sum())(x.detach()), grad_of(module, x))
    assert torch.allclose(torch.compile(module, fullgraph=True, backend="aot_eager")(x), y)
    assert replayed(output(module, x))


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
