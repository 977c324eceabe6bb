"""Norms over the heads of packed queries and keys: which layouts are read where they lie, and which are copied first.

A norm of rows takes any one distance between rows. Heads of one token and tokens at two distances are no such thing.
"""

import functools

import pytest
import torch
from torch import Tensor, nn

import normkernels as nk
from bench.memory import usage

B, T, H, D = 2, 8, 4, 64
NORMS = {
    "layer": functools.partial(nk.LayerNorm, D),
    "rms": functools.partial(nk.RMSNorm, D),
    "layer, free": functools.partial(nk.LayerNorm, D, elementwise_affine=False),
    "rms, free": functools.partial(nk.RMSNorm, D, elementwise_affine=False),
}
LAYOUTS = {  # how a product's output is cut, and how many times a norm copies it
    "3, B, T, H, D": (lambda: torch.randn(3, B, T, H, D)[:2], 0),
    "B, T, H, 3, D": (lambda: torch.randn(B, T, H, 3, D)[..., 0, :], 0),
    "B, T, H, 2 D": (lambda: torch.randn(B, T, H, 2 * D)[..., D:], 0),
    "B, T, 3, H, D": (lambda: torch.randn(B, T, 3, H, D)[:, :, :2], 1),
    "B, T, 3, H, D to B, H, T, D": (lambda: torch.randn(B, T, 3, H, D).permute(2, 0, 3, 1, 4)[0], 1),
}
every_norm = pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
every_layout = pytest.mark.parametrize(("packed", "copies"), LAYOUTS.values(), ids=LAYOUTS)


def tensors(call, x: Tensor) -> int:
    """How many of x's size a call allocates at once, beyond smaller things."""
    call()
    return round(max(usage(call)) / (x.numel() * x.element_size()))


@every_norm
@every_layout
def test_what_is_copied(make, packed, copies):
    """y, or dx, and the copy; the same rows as of a copy that the caller makes, to the bit."""
    torch.manual_seed(0)
    norm, x = make(), packed().requires_grad_()
    y, same = norm(x), norm(x.detach().contiguous())
    assert torch.equal(y, same)
    dy = torch.randn_like(y)
    leaves = [x, *norm.parameters()]
    with torch.no_grad():
        assert tensors(lambda: norm(x), x) == 1 + copies
    assert tensors(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), x) == 1 + copies
    whole = x.detach().contiguous().requires_grad_()
    found, wanted = (torch.autograd.grad(norm(t), [t, *norm.parameters()], dy) for t in (x, whole))
    assert all(map(torch.equal, found, wanted))


@every_norm
def test_many_at_once(make):
    """A batch of norms, mapped over, with parameters of each head where there are any."""
    torch.manual_seed(0)
    heads: list[nn.Module] = [make() for _ in range(H)]
    with torch.no_grad():
        for p in (p for head in heads for p in head.parameters()):
            p.add_(torch.randn_like(p))
    x = torch.randn(B, T, H, D)
    parameters, _ = torch.func.stack_module_state(heads)

    def one(p: dict[str, Tensor], t: Tensor) -> Tensor:
        return torch.func.functional_call(heads[0], p, (t,))

    y = torch.vmap(one, in_dims=(0, 2), out_dims=2)(parameters, x) if parameters else torch.vmap(heads[0], 2, 2)(x)
    torch.testing.assert_close(y, torch.stack([head(t) for head, t in zip(heads, x.unbind(2), strict=True)], 2))
