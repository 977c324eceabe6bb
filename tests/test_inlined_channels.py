"""Compiled for the CPU, norms of small channels by statistics of their input are ordinary ops, in training too."""

from typing import Any

import pytest
import torch
from aot_graphs import Graphs
from torch import Tensor

import normkernels as nk
from normkernels.ops._channels import Settings
from normkernels.ops._inlined_channels import InlinedChannels

F = nk.functional
C = 8
NORMS = {
    "batch": lambda x, **more: F.batch_norm(x, None, None, training=True, **more),
    "group": lambda x, **more: F.group_norm(x, 4, **more),
    "instance": lambda x, **more: F.instance_norm(x, **more),
}
EXTRAS = {  # of each: the activation, and whether something is added or gates
    "alone": {},
    "opened": {"activation": "silu"},
    "added": {"skip": True, "activation": "relu"},
    "gated": {"gate": True, "activation": "sigmoid"},
}
every_norm = pytest.mark.parametrize("norm", NORMS)
every_extra = pytest.mark.parametrize("extra", EXTRAS)


def compiled(call: Any, backend: Any = "aot_eager") -> Any:
    torch._dynamo.reset()
    return torch.compile(call, backend=backend, fullgraph=True, dynamic=False)


def call_of(norm: str, extra: str) -> tuple[Any, list[str]]:
    """A function of (input, weight, bias) and what is added, and the names of these."""
    names = [name for name in ("skip", "gate") if name in EXTRAS[extra]]
    more = {k: v for k, v in EXTRAS[extra].items() if k not in names}

    def call(x: Tensor, weight: Tensor | None, bias: Tensor | None, *added: Tensor) -> Tensor:
        return NORMS[norm](x, weight=weight, bias=bias, **dict(zip(names, added, strict=True)), **more)

    return call, names


def inputs(shape: tuple[int, ...], dtype: torch.dtype, last: bool, added: int, affine: bool) -> list[Tensor | None]:
    x = (30 + torch.randn(shape)).to(dtype)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    wide = torch.promote_types(dtype, torch.float32)
    parameters = [torch.rand(C, dtype=wide), torch.randn(C, dtype=wide)] if affine else [None, None]
    found = [x, *parameters, *(torch.randn_like(x) for _ in range(added))]
    return [None if t is None else t.requires_grad_() for t in found]


def results(call: Any, tensors: list[Tensor | None], dy: Tensor) -> list[Tensor]:
    y = call(*tensors)
    return [y.detach(), *torch.autograd.grad(y, [t for t in tensors if t is not None], dy.to(y.dtype))]


@every_norm
@every_extra
@pytest.mark.parametrize(
    ("dtype", "shape", "last", "affine"),
    [
        (torch.float32, (3, C, 5, 7), False, True),
        (torch.float32, (2, C, 2, 3, 4), True, False),
        (torch.bfloat16, (3, C, 5, 7), True, True),
    ],
    ids=["float32", "channels_last", "bfloat16"],
)
def test_values_and_gradients(norm, extra, dtype, shape, last, affine):
    """Of the op, in both layouts, with weight and bias and without; y lies as the op's and no op of ours is left."""
    if norm == "batch" and extra == "gated":
        return  # batch norm takes no gate
    call, names = call_of(norm, extra)
    near = 2e-2 if dtype == torch.bfloat16 else 2e-5
    counter = Graphs()
    given = inputs(shape, dtype, last, len(names), affine)
    dy = torch.randn_like(given[0])
    found, wanted = (results(f, given, dy) for f in (compiled(call, counter), call))
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=near, atol=near * max(want.abs().max().item(), 1))
        assert got.stride() == want.stride()
    assert not counter.ours


@every_norm
@pytest.mark.parametrize("grad", [False, True])
def test_large_ones_are_the_op(norm, grad):
    """Beyond 2^17 values, 2^14 in channels_last, and where a batch may be any: nobody knows then that it is small."""
    call, _ = call_of(norm, "alone")
    with torch.set_grad_enabled(grad):
        for shape, last, dynamic, held in (
            ((2, C, 64, 128), False, False, False),
            ((2, C, 64, 129), False, False, True),
            ((2, C, 32, 32), True, False, False),
            ((2, C, 32, 33), True, False, True),
            ((4, C, 3), False, True, True),
        ):
            counter = Graphs()
            x = torch.randn(shape)
            x = (x.contiguous(memory_format=torch.channels_last) if last else x).requires_grad_(grad)
            if dynamic:
                torch._dynamo.mark_dynamic(x, 0)
            torch._dynamo.reset()
            torch.testing.assert_close(
                torch.compile(call, backend=counter, fullgraph=True)(x, None, None), call(x, None, None)
            )
            assert counter.ours == held


@every_norm
@pytest.mark.parametrize("last", [False, True])
def test_channels_far_from_0(norm, last):
    """As exact as our op, by Inductor's code too, where torch's function rounds the mean."""
    call, dy = call_of(norm, "alone")[0], torch.randn(4, C, 6, 5)
    by_inductor = compiled(call, "inductor")

    def of(f: Any, x: Tensor) -> list[Tensor]:
        return results(f, [x.clone().requires_grad_(), None, None], dy)

    part = torch.zeros(6, 5)
    part[:4] = 1e3  # what is taken off is far from the rest
    for mean, deviation in ((1e4, 1e-2), (1e6, 1.0), (0.0, 1e-3), (1e3, 0.0), (part, 1.0)):
        x = mean + deviation * torch.randn(4, C, 6, 5)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        found, op, wanted = of(by_inductor, x), of(call, x), of(call, x.double())
        for got, other, want in zip(found, op, wanted, strict=True):
            allowed = 2 * (other - want).abs().max() + 1e-6 * want.abs().max() + 1e-6
            assert (got - want).abs().max() <= allowed, (mean, deviation)


def test_running_statistics():
    """They move as the op moves them, far from 0 too."""
    x = 1e4 + 1e-2 * torch.randn(4, C, 6, 5)
    for function in (F.batch_norm, F.instance_norm):
        states = [[torch.zeros(C), torch.ones(C)] for _ in range(2)]
        for f, state in zip((compiled(function, "inductor"), function), states, strict=True):
            f(x, *state, None, None, True)
        for got, want in zip(*states, strict=True):
            torch.testing.assert_close(got, want)


@every_norm
def test_changed_in_place(norm):
    """As a residual block may do with what a norm gave it; input stays as it was."""
    call = NORMS[norm]

    def block(x: Tensor) -> Tensor:
        y = call(x)
        y += x
        return y.relu_() * 2

    x = torch.randn(3, C, 5, requires_grad=True)
    found, wanted = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (compiled(block), block))
    torch.testing.assert_close(found, wanted)


def test_a_weight_for_each_image():
    call, _ = call_of("group", "opened")
    given = [torch.randn(3, C, 5, requires_grad=True), torch.rand(3, C, requires_grad=True), None]
    counter, dy = Graphs(), torch.randn(3, C, 5)
    found, wanted = (results(f, given, dy) for f in (compiled(call, counter), call))
    torch.testing.assert_close(found, wanted)
    assert not counter.ours


@every_norm
@every_extra
def test_differentiated_twice(norm, extra):
    """By finite differences; torch.compile itself differentiates once."""
    if norm == "batch" and extra == "gated":
        return
    numbers = EXTRAS[extra].get("activation", "identity")
    activation = f"gated_{numbers}" if "gate" in EXTRAS[extra] else numbers
    groups = 4 if norm == "group" else C
    kernels: Any = (None, None)
    settings = Settings(*kernels, norm == "batch", groups, 1e-5, activation, 0.01, None)
    x, weight, bias = (t.requires_grad_() for t in (torch.randn(3, C, 2).double(), *torch.randn(2, C).double()))
    skip = torch.randn(3, C, 2, dtype=torch.float64, requires_grad=True) if len(EXTRAS[extra]) > 1 else None

    def y(x: Tensor, weight: Tensor, bias: Tensor, *skip: Tensor) -> Tensor:
        return InlinedChannels.apply(x, *(skip or (None,)), weight, bias, settings)[0]

    given = (x, weight, bias, *(() if skip is None else (skip,)))
    assert torch.autograd.gradcheck(y, given)
    assert torch.autograd.gradgradcheck(y, given)
