"""Long rows, forward: sums of each tile of a row about a value near its mean, added in one order, then y.

One kernel for two ways, so that a row has the same bits in both. Of many rows a program takes one, and reads it again
from L2. Of few it takes some tiles: one launch leaves their sums, another adds those of its row and applies them.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import affine, number, rounded
from normkernels._backends.triton.rows.runs import Runs
from normkernels._backends.triton.rows.sizes import shares
from normkernels._backends.triton.rows.tiles import (
    completed,
    load_gate,
    load_parameter,
    load_piece,
    minus,
    sample,
    shifted,
    store_piece,
)

RECORDS = tl.constexpr(256)  # tiles whose moments a program merges at a time
BOTH, MOMENTS, APPLIED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # steps that a launch takes


class Strides(NamedTuple):
    """Of the rows."""

    x: Runs
    residual: Runs
    gate: Runs


@triton.jit
def load_segment(t, low, row, M, N, strides, FORM: tl.constexpr):
    # s = x + residual of the columns from `low` on, as rounded in memory
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    s = load_piece(t.x + low, 0, row, strides.x, M, N - low, dtype, FORM)
    if t.residual is not None:
        s = s + load_piece(t.residual + low, 0, row, strides.residual, M, N - low, dtype, FORM)
        s = rounded(s, t.summed.dtype.element_ty).to(dtype)
    return s


@triton.jit
def whole(sums):
    # one value as a scalar: of a tensor's store the layout would be that of all x, summed up by each thread alone
    return tl.sum(sums, axis=0)


@triton.jit
def store_sums(PARTIAL, x, near, low, N, tiles, FORM: tl.constexpr, CENTER: tl.constexpr):
    # of a tile: of the squares, or of x - near and its squares
    at = PARTIAL + low // FORM.BLOCK_N
    if CENTER:
        x = minus(x, near, 0, N - low, FORM)
        first, second = both_sums(x, x * x)
        tl.store(at, whole(second))
        tl.store(at + tiles, whole(first))
    else:
        tl.store(at, whole(tl.sum(x * x, axis=1)))


@triton.jit
def merged(PARTIAL, N, tiles, CENTER: tl.constexpr):
    # mean, what is to be added to it, and variance of a row
    dtype: tl.constexpr = PARTIAL.dtype.element_ty
    squares = tl.zeros([1, RECORDS], dtype)
    sums = tl.zeros([1, RECORDS], dtype)
    for low in range(0, tiles, RECORDS):
        tile = low + tl.arange(0, RECORDS)[None, :]
        squares += tl.load(PARTIAL + tile, mask=tile < tiles, other=0.0)
        if CENTER:
            sums += tl.load(PARTIAL + tiles + tile, mask=tile < tiles, other=0.0)
    if CENTER:
        rest, squares = both_sums(sums, squares)
        rest, var = rest[:, None] / N, squares[:, None] / N
        near = tl.load(PARTIAL + tiles * 2)
        var = tl.maximum(var - rest * rest, 0.0, propagate_nan=tl.PropagateNan.ALL)
    else:
        var = tl.sum(squares, axis=1)[:, None] / N
        rest = tl.zeros([1, 1], dtype)
        near = tl.full([], 0.0, dtype)
    return near, rest, var


@triton.jit(do_not_specialize=["M", "B", "step"])
def rows_long_forward_kernel(
    t, PARTIAL, M, N, B, strides, step, EPS: tl.float64, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    STAGES: tl.constexpr = FORM.STAGES
    CENTER: tl.constexpr = t.mean is not None
    N = N // FORM.ALIGN * FORM.ALIGN
    each = tl.num_programs(0) // M  # programs of a row
    tiles = tl.cdiv(N, BLOCK_N)
    columns = tl.cdiv(tiles, each) * BLOCK_N  # of a program
    begin = tl.program_id(0) % each * columns
    end = tl.minimum(begin + columns, N)
    row = tl.program_id(0).to(tl.int64) // each
    PARTIAL += row * (2 * tiles + 1 if CENTER else tiles)
    row += tl.arange(0, 1)[:, None]
    near = tl.full([], 0.0, t.rstd.dtype.element_ty)
    if CENTER and step != APPLIED:
        # the first tile's mean, the same for all of a row, whose variance then loses a rounding for each tile at most
        near = whole(tl.sum(load_segment(t, 0, row, M, N, strides, FORM), axis=1)) / tl.minimum(N, BLOCK_N)
        tl.store(PARTIAL + 2 * tiles, near, mask=begin == 0)
    for low in tl.range(begin, begin if step == APPLIED else end, BLOCK_N, num_stages=STAGES):
        x = load_segment(t, low, row, M, N, strides, FORM)
        if t.residual is not None:
            store_piece(t.summed + low, x, 0, row, N, M, N - low, FORM)
        store_sums(PARTIAL, x, near, low, N, tiles, FORM, CENTER)
    tl.debug_barrier()  # what other threads of this program left in memory
    if step != MOMENTS:
        near, rest, var = merged(PARTIAL, N, tiles, CENTER)
        rstd = tl.rsqrt(var + number(EPS, var.dtype))
        if CENTER:
            tl.store(t.mean + row, near + rest, mask=begin == 0)
        tl.store(t.rstd + row, rstd, mask=begin == 0)
        weight = t.weight
        bias = t.bias
        if B is not None:
            which, _ = sample(B)
            weight = shifted(weight, which.to(tl.int64) * N)
            bias = shifted(bias, which.to(tl.int64) * N)
        # the sum as it was written
        S = t.x if t.residual is None else t.summed
        stride = strides.x if t.residual is None else Runs(N, None, None, None, None)
        for low in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
            x = load_piece(S + low, 0, row, stride, M, N - low, rstd.dtype, FORM)
            if CENTER:
                x = x - near - rest
            w = load_parameter(shifted(weight, low), 0, N - low, OFFSET, rstd.dtype, FORM)
            b = load_parameter(shifted(bias, low), 0, N - low, None, rstd.dtype, FORM)
            gate = load_gate(shifted(t.gate, low), 0, row, strides.gate, M, N - low, FORM)
            y = completed(affine(x * rstd, w, b), gate, SLOPE, ACT)
            store_piece(t.y + low, y, 0, row, N, M, N - low, FORM)


def long_forward(t, a, B: int | None, strides: Strides, segments: dict) -> None:
    """Fill y, summed, mean and rstd; t: what the kernels of the family are given, a: the arguments of an op."""
    M, N = a.y.shape
    tiles = cdiv(N, segments["FORM"].BLOCK_N)
    partial = accumulator(a.rstd, M, tiles if t.mean is None else 2 * tiles + 1)
    constants = {"EPS": a.eps, "OFFSET": a.weight_offset, "SLOPE": a.slope, "ACT": a.activation}
    each = min(tiles, shares(a.y))
    for step in (BOTH,) if each == 1 else (MOMENTS, APPLIED):
        rows_long_forward_kernel[(M * each,)](t, partial, M, N, B, strides, step.value, **constants, **segments)
