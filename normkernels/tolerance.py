"""How close is right: a tolerance derived from the float64 reference, never chosen by hand.

``|got - want| <= ulp(got.dtype) * |want| + C * move``, where ``want`` is the reference in float64 on the values that
the kernel was given (rounded to the dtype under test; a residual is added and rounded first, as the functions promise),
and ``move`` is, per row, the largest of these over draws in which every input, parameter and cotangent moves up or
down, by one float32 ulp in the first draw, two in the second, and so on:

* how far ``want`` moves for each ulp;
* how far the reference in float32 lands from the reference in float64 on the moved inputs; in the dtype itself for an
  op that goes through torch's matrix product, whose factors and result are in that dtype.

float64 has no wider type to stand on. There ``move`` is that of float32 scaled by the ratio of the ulps, 2**-29:
rounding errors grow in proportion to the ulp.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels.cases import Op, Sample
from normkernels.ops._ways import closed_forms

C = 16  # correct code was seen to need a few units, seeded bugs hundreds
DRAWS = 6

Named = dict[str, Tensor]


class Report(NamedTuple):
    """One output or gradient of one call: the element that is worst in units of what it is allowed."""

    name: str
    worst: float
    where: tuple[int, ...]
    got: float
    want: float
    allowed: float
    off: int
    total: int

    def __str__(self) -> str:
        at = f"at {self.where}: got {self.got:.9g}, want {self.want:.9g}, allowed {self.allowed:.3g}"
        return f"{self.name}: {self.off} of {self.total} off; {at}"


def check(
    op: Op, sample: Sample, backend: str | None, dtype: torch.dtype, device: str = "cpu",
    parameter_dtype: torch.dtype | None = None,
) -> list[Report]:  # fmt: skip
    """Every output and every gradient of one call, against the float64 reference."""
    got = run(op, sample.call, *given(op, sample, dtype, parameter_dtype, device), backend)
    return judge(op, sample, got, dtype, parameter_dtype)


def judge(
    op: Op, sample: Sample, got: Named, dtype: torch.dtype, parameter_dtype: torch.dtype | None = None
) -> list[Report]:
    """What :func:`run` found for a sample in ``dtype``, against the float64 reference."""
    expected = _expected(op, sample, dtype, parameter_dtype or dtype)
    return [_compare(f"{op.stem} {name}", got[name], want, move) for name, (want, move) in expected.items()]


def given(
    op: Op, sample: Sample, dtype: torch.dtype, parameter_dtype: torch.dtype | None = None, device: str = "cpu"
) -> tuple[Named, list[Tensor]]:
    """The tensors and cotangents of a sample as a kernel gets them: rounded, on the device, with the same strides."""
    dtypes = dict.fromkeys(op.parameters, parameter_dtype or dtype)
    tensors = {k: _place(t, dtypes.get(k, dtype), device) for k, t in sample.present().items()}
    return tensors, [_place(dy, dtype, device) for dy in sample.cotangents]


def _place(t: Tensor, dtype: torch.dtype, device: str) -> Tensor:
    storage = t.new_empty(0).set_(t.untyped_storage())  # so that gaps and expanded dims survive
    return storage.to(device, dtype, copy=True).as_strided(t.shape, t.stride(), t.storage_offset())


def run(op: Op, call: dict[str, Any], tensors: Named, cotangents: list[Tensor], backend: str | None) -> Named:
    """The outputs and gradients of one call by name, and what it made of its state; ``tensors`` stay as they are."""
    state = {k: tensors[k].clone() for k in op.state if k in tensors}
    leaves = {k: t.detach().requires_grad_() for k, t in tensors.items() if k not in state}
    outputs = op.function(**leaves, **state, **call, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for y in outputs:
        assert y.dtype == next(iter(tensors.values())).dtype, f"{op.stem}: output is {y.dtype}"
    grads = torch.autograd.grad(outputs, list(leaves.values()), cotangents)
    named = {f"output {i}": y.detach() for i, y in enumerate(outputs)} | {f"new {k}": t for k, t in state.items()}
    return named | {f"grad {k}": g for k, g in zip(leaves, grads, strict=True)}


@functools.cache
def _expected(
    op: Op, sample: Sample, dtype: torch.dtype, parameter_dtype: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """(want, move) of every output and gradient."""
    tensors, cotangents = given(op, sample, dtype, parameter_dtype)
    if "residual" in tensors:
        tensors["input"] = tensors["input"] + tensors["residual"]
        tensors["residual"] = torch.zeros_like(tensors["residual"])
    want = _reference(op, sample, tensors, cotangents, torch.float64)
    moves = list(_moves(op, sample, tensors, cotangents, want, dtype))
    return {k: (want[k], _per_row(op, sample, k, torch.stack([m[k] for m in moves]).amax(0))) for k in want}


def _moves(op, sample, tensors, cotangents, want, dtype) -> Iterator[Named]:
    ratio = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps if dtype == torch.float64 else 1.0
    generator = torch.Generator().manual_seed(0)
    for ulps in range(1, DRAWS + 1):
        nudged = [_nudge(t.float(), ulps, generator) for t in (*tensors.values(), *cotangents)]
        near, dys = dict(zip(tensors, nudged, strict=False)), nudged[len(tensors) :]
        narrow = dtype if op.rounded and dtype.itemsize == 2 else torch.float32
        low, high = (_reference(op, sample, near, dys, d) for d in (narrow, torch.float64))
        yield {k: torch.maximum((high[k] - want[k]).abs() / ulps, (low[k] - high[k]).abs()) * ratio for k in want}


def _nudge(t: Tensor, ulps: int, generator: torch.Generator) -> Tensor:
    up_or_down = torch.randint(2, t.shape, generator=generator) * 2 - 1
    return t * (1 + up_or_down * (ulps * torch.finfo(t.dtype).eps))


def _reference(op, sample, tensors: Named, cotangents: list[Tensor], dtype: torch.dtype) -> Named:
    tensors, cotangents = {k: t.to(dtype) for k, t in tensors.items()}, [dy.to(dtype) for dy in cotangents]
    with closed_forms():
        return {k: t.double() for k, t in run(op, sample.call, tensors, cotangents, "reference").items()}


def _per_row(op: Op, sample: Sample, name: str, move: Tensor) -> Tensor:
    """The largest move of each row (each parameter as a whole), so that no element is held to a lucky draw."""
    if move.numel() == 0:
        return move
    whole = name.split()[1] in op.parameters
    return move.amax() if whole else move.amax(sample.dims, keepdim=True)


def _compare(name: str, got: Tensor, want: Tensor, move: Tensor) -> Report:
    assert got.shape == want.shape, f"{name}: shape is {tuple(got.shape)}, not {tuple(want.shape)}"
    if got.numel() == 0:
        return Report(name, 0.0, (), 0.0, 0.0, 0.0, 0, 0)
    info = torch.finfo(got.dtype)
    got = got.cpu().double()
    allowed = info.eps * want.abs().clamp(min=info.tiny) + C * move
    ratio = ((got - want).abs() / allowed).nan_to_num(nan=torch.inf, posinf=torch.inf)
    where = torch.unravel_index(ratio.argmax(), ratio.shape)
    at = [t[where].item() for t in (got, want, allowed.expand_as(want))]
    index, off = tuple(int(i) for i in where), int((ratio > 1).sum())
    return Report(name, ratio.max().item(), index, at[0], at[1], at[2], off, ratio.numel())
