"""Rows: where those of a tensor lie that is only read.

One distance apart, or in runs of such rows: the runs side by side at one distance too, and that again.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor


class Runs(NamedTuple):
    """Of one run ``rows`` is None, of runs at one distance ``side``."""

    stride: int  # of the rows
    rows: int | None = None  # of a run
    near: int | None = None  # from a run to the next one
    side: int | None = None  # runs side by side
    far: int | None = None  # from so many to the next ones


def runs(t: Tensor | None) -> Runs:
    """Of (M, N), or of (..., N) with up to three dims of rows."""
    if t is None or t.dim() == 2:
        return Runs(0 if t is None else t.stride(0))
    run = t.stride(-2), t.shape[-2], t.stride(-3)
    return Runs(*run) if t.dim() == 3 else Runs(*run, t.shape[-3], t.stride(0))


def distances(*given: Runs) -> list[int]:
    """All of them: what divides each divides the place of every row."""
    return [d for r in given for d in (r.stride, r.near, r.far) if d is not None]


@triton.jit
def place(rows, stride, FORM: tl.constexpr):
    # how far they are from the first row; stride: Runs
    if stride.rows is None:
        at = rows * (stride.stride // FORM.ALIGN * FORM.ALIGN)
    else:
        run = rows // stride.rows
        at = rows % stride.rows * (stride.stride // FORM.ALIGN * FORM.ALIGN)
        if stride.side is None:
            at += run * (stride.near // FORM.ALIGN * FORM.ALIGN)
        else:
            at += run % stride.side * (stride.near // FORM.ALIGN * FORM.ALIGN)
            at += run // stride.side * (stride.far // FORM.ALIGN * FORM.ALIGN)
    return at
