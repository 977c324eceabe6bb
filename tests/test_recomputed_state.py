"""A state under activation checkpointing, torch.compile and fake tensors."""

from functools import partial

import pytest
import torch
from common import every_layout
from stateful_layers import SETTINGS, SHAPES, every_kind, new, numbers, same, state, step, used
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import normkernels as nk


def once(module, x):
    return torch.tanh(module(x))


def twice(module, x):
    """One layer, two calls in one region, whose states differ."""
    return torch.tanh(module(1.5 * torch.tanh(module(x)) + 0.3))


REGIONS = {
    "once": lambda module, x, run: run(partial(once, module), x),
    "twice-in-one": lambda module, x, run: run(partial(twice, module), x),
    "in-two": lambda module, x, run: run(partial(once, module), run(partial(twice, module), x)),
    "in-three": lambda module, x, run: sum(
        run(partial(f, module), k * x) for k, f in ((1, once), (2, twice), (3, once))
    ),
    "inside-and-outside": lambda module, x, run: once(module, run(partial(once, module), once(module, x))),
    "bare": lambda module, x, run: run(module, x),
}


@pytest.mark.parametrize("reentrant", [False, True], ids=["saved-tensors", "reentrant"])
@pytest.mark.parametrize("region", REGIONS)
@every_kind
def test_checkpointing(kind, region, reentrant):
    """The bits of outputs, gradients and state without checkpointing, step after step."""
    (module, _), (twin, x) = used(kind + "2d"), used(kind + "2d")
    for i in range(3):
        x = numbers(x.shape, 20 + i)
        again = partial(checkpoint, use_reentrant=reentrant)
        got, want = (
            step(m, x, partial(REGIONS[region], m, run=run)) for m, run in ((module, again), (twin, lambda f, t: f(t)))
        )
        same(got[:2], want[:2])
        torch.testing.assert_close(got[2:], want[2:], rtol=1e-12, atol=1e-12)  # sums over calls in another order
        same(state(module), state(twin))


@pytest.mark.parametrize("reentrant", [False, True], ids=["saved-tensors", "reentrant"])
@every_kind
def test_checkpointed_calls_before_their_backwards(kind, reentrant):
    """Two micro-batches forward, then their backwards, in either order."""
    for order in ((0, 1), (1, 0)):
        found = []
        for run in (partial(checkpoint, use_reentrant=reentrant), lambda f, t: f(t)):
            module, x = used(kind + "2d")
            xs = [numbers(x.shape, 20 + i).requires_grad_() for i in range(2)]
            ys = [run(partial(twice, module), x) for x in xs]
            for i in order:
                ys[i].backward(numbers(x.shape, 30 + i))
            found.append([*ys, *(x.grad for x in xs), *(p.grad for p in module.parameters()), state(module)])
        same(*found)


@every_kind
def test_a_call_in_a_hook_of_a_backward_is_not_a_recomputation(kind):
    """A layer that is first used inside a backward moves its own state."""
    module, x = new(kind + "2d"), numbers(SHAPES["2d"])
    before = state(module)
    leaf = x.clone().requires_grad_()
    leaf.register_hook(lambda g: g + module(x))
    leaf.square().sum().backward()
    assert any(not torch.equal(t, before[k]) for k, t in state(module).items())


@every_layout
@every_kind
def test_compiled_steps(kind, layout):
    """Forward and backward in one graph each, bit for bit, with the state moving; then inference, by ordinary ops."""
    (ours, x), (twin, _) = used(kind + "2d"), used(kind + "2d")
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for i, train in enumerate((True, True, False)):
        for module in (ours, twin):
            module.train(train)
        x = layout(numbers(x.shape, 20 + i))
        (same if train else torch.testing.assert_close)(step(ours, x, compiled), step(twin, x))
        same(state(ours), state(twin))


@every_kind
def test_nothing_waits_for_the_device(kind):
    """No value is read: training, its backward, updates and inference all run without any."""
    with FakeTensorMode():
        module = getattr(nk, kind + "2d")(12, **SETTINGS[kind])
        for train in (True, True, False):
            x = torch.randn(SHAPES["2d"], requires_grad=True)
            module.train(train)(x).sum().backward()
            getattr(module, "weights_changed", lambda: None)()
    meta = getattr(nk, kind + "2d")(12, device="meta", **SETTINGS[kind])
    meta(torch.randn(SHAPES["2d"], device="meta", requires_grad=True)).sum().backward()
