"""Long rows, forward: the moments of each tile of a row, merged in one order, then y.

One kernel for two ways, so that a row has the same bits in both. Of many rows a program takes one, and reads it again
from L2. Of few it takes some tiles: a launch leaves their moments, another merges those of its row and applies them.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import affine, number, rounded
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

    x: int
    residual: int
    gate: int


@triton.jit
def load_segment(t, low, row, M, N, strides, FORM: tl.constexpr):
    # s = x + residual of the columns from `low` on, as rounded in memory
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    s = load_piece(t.x + low, 0, row, strides.x, M, N - low, dtype, FORM)
    if t.residual is not None:
        s = s + load_piece(t.residual + low, 0, row, strides.residual, M, N - low, dtype, FORM)
        s = rounded(s, t.summed.dtype.element_ty).to(dtype)
        store_piece(t.summed + low, s, 0, row, N, M, N - low, FORM)
    return s


@triton.jit
def store_moments(PARTIAL, x, low, N, table, FORM: tl.constexpr, CENTER: tl.constexpr):
    # of a tile: the squares about its mean, and in tables of their own the mean and what rounding left of it;
    # scalars, for a store of one value as a tile would have each thread sum up all of x
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    at = PARTIAL + low // BLOCK_N
    if CENTER:
        count = tl.minimum(N - low, BLOCK_N).to(x.dtype)
        mean = tl.sum(tl.sum(x, axis=1), axis=0) / count
        x = minus(x, mean, 0, N - low, FORM)
        rest, squares = both_sums(x, x * x)
        rest, squares = tl.sum(rest, axis=0) / count, tl.sum(squares, axis=0)
        tl.store(at, tl.maximum(squares - rest * rest * count, 0.0, propagate_nan=tl.PropagateNan.ALL))
        tl.store(at + table, mean)
        tl.store(at + table * 2, rest)
    else:
        tl.store(at, tl.sum(tl.sum(x * x, axis=1), axis=0))


@triton.jit
def load_record(PARTIAL, low, N, FORM: tl.constexpr):
    # of some tiles, and how many values each has
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    tile = low + tl.arange(0, RECORDS)[None, :]
    mask = tile < tl.cdiv(N, BLOCK_N)
    count = tl.where(mask, tl.minimum(N - tile * BLOCK_N, BLOCK_N), 0).to(PARTIAL.dtype.element_ty)
    return tl.load(PARTIAL + tile, mask=mask, other=0.0), count


@triton.jit
def merged(PARTIAL, N, table, FORM: tl.constexpr, CENTER: tl.constexpr):
    # mean, what rounding left of it, and variance of a row
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    dtype: tl.constexpr = PARTIAL.dtype.element_ty
    tiles = tl.cdiv(N, BLOCK_N)
    squares = tl.zeros([1, RECORDS], dtype)
    if CENTER:
        total = tl.zeros([1, RECORDS], dtype)
        for low in range(0, tiles, RECORDS):
            first, count = load_record(PARTIAL + table, low, N, FORM)
            total += first * count
        mean = tl.sum(total, axis=1)[:, None] / N
        # Chan: the tiles' sums of squares, and their means' squared distances from the mean of all
        moved = tl.zeros([1, RECORDS], dtype)
        for low in range(0, tiles, RECORDS):
            first, count = load_record(PARTIAL + table, low, N, FORM)
            rest, _ = load_record(PARTIAL + table * 2, low, N, FORM)
            own, _ = load_record(PARTIAL, low, N, FORM)
            distance = first - mean + rest
            moved += distance * count
            squares += distance * distance * count + own
        rest, squares = both_sums(moved, squares)
        rest, squares = rest[:, None] / N, squares[:, None] / N
        var = tl.maximum(squares - rest * rest, 0.0, propagate_nan=tl.PropagateNan.ALL)
    else:
        for low in range(0, tiles, RECORDS):
            own, _ = load_record(PARTIAL, low, N, FORM)
            squares += own
        var = tl.sum(squares, axis=1)[:, None] / N
        mean = tl.zeros([1, 1], dtype)
        rest = mean
    return mean, rest, var


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
    PARTIAL += row * tiles
    row += tl.arange(0, 1)[:, None]
    table = M.to(tl.int64) * tiles
    for low in tl.range(begin, begin if step == APPLIED else end, BLOCK_N, num_stages=STAGES):
        x = load_segment(t, low, row, M, N, strides, FORM)
        store_moments(PARTIAL, x, low, N, table, FORM, CENTER)
    tl.debug_barrier()  # what other threads of this program left in memory
    if step != MOMENTS:
        mean, rest, var = merged(PARTIAL, N, table, FORM, CENTER)
        rstd = tl.rsqrt(var + number(EPS, var.dtype))
        if CENTER:
            tl.store(t.mean + row, mean + rest, mask=begin == 0)
        tl.store(t.rstd + row, rstd, mask=begin == 0)
        weight = t.weight
        bias = t.bias
        if B is not None:
            which, _ = sample(B)
            weight = shifted(weight, which.to(tl.int64) * N)
            bias = shifted(bias, which.to(tl.int64) * N)
        # the sum as it was written
        S = t.x if t.residual is None else t.summed
        stride = strides.x if t.residual is None else N
        for low in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
            x = load_piece(S + low, 0, row, stride, M, N - low, rstd.dtype, FORM)
            if CENTER:
                x = x - mean - rest
            w = load_parameter(shifted(weight, low), 0, N - low, OFFSET, rstd.dtype, FORM)
            b = load_parameter(shifted(bias, low), 0, N - low, None, rstd.dtype, FORM)
            gate = load_gate(shifted(t.gate, low), 0, row, strides.gate, M, N - low, FORM)
            y = completed(affine(x * rstd, w, b), gate, SLOPE, ACT)
            store_piece(t.y + low, y, 0, row, N, M, N - low, FORM)


def long_forward(t, a, B: int | None, strides: Strides, segments: dict) -> None:
    """Fill y, summed, mean and rstd; t: what the kernels of the family are given, a: the arguments of an op."""
    M, N = a.x.shape
    tiles = cdiv(N, segments["FORM"].BLOCK_N)
    partial = accumulator(a.rstd, 1 if t.mean is None else 3, M, tiles)
    constants = {"EPS": a.eps, "OFFSET": a.weight_offset, "SLOPE": a.slope, "ACT": a.activation}
    each = min(tiles, shares(a.x))
    for step in (BOTH,) if each == 1 else (MOMENTS, APPLIED):
        rows_long_forward_kernel[(M * each,)](t, partial, M, N, B, strides, step.value, **constants, **segments)
