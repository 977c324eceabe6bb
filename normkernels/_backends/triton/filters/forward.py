"""Filters, forward: w = g v / |v|, or w = g (v - mean) rstd with rstd = (var + eps)^(-1/2)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator, alignment
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.values import inside, load_rows, number
from normkernels._backends.triton.filters.tiles import (
    CHUNK,
    inverse,
    record,
    segment,
    segments,
    store_filters,
    store_stat,
    times,
)
from normkernels._backends.triton.rows.sizes import forward_tile
from normkernels._backends.triton.rows.tiles import centre


@triton.jit
def statistic(squares, N, EPS, CENTER: tl.constexpr):
    # rstd, or without a mean the norm; and what v - mean is multiplied by
    if not CENTER:
        stat = tl.sqrt(squares)
        factor = inverse(stat)
    else:
        stat = tl.rsqrt(squares / N + number(EPS, squares.dtype))
        factor = stat
    return stat, factor


@triton.jit(do_not_specialize=["M"])
def filters_forward_kernel(
    V, G, W, MEAN, STAT,  # v, w: (M, N); g, mean, stat: (M,)
    M, N, EPS: tl.float64, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_N)
    mask = inside(rows, cols, M, N)
    v = load_rows(V, rows, cols, N, mask, STAT.dtype.element_ty)
    if MEAN is not None:
        v, mean, rest = centre(v, mask, N)
        store_stat(MEAN, mean + rest, rows, M)
    stat, factor = statistic(tl.sum(v * v, axis=1)[:, None], N, EPS, MEAN is not None)
    store_stat(STAT, stat, rows, M)
    store_filters(W, v * times(factor, G, rows, M), rows, cols, N, mask)


@triton.jit(do_not_specialize=["START"])
def filters_moments_kernel(
    V, PARTIAL, START, N,  # partial: (wave, segments, 3), mean, what rounding left of it, sum of squares
    CENTER: tl.constexpr, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows, low, cols, mask = segment(START, N, BLOCK_N)
    v = load_rows(V + low, rows, cols, N, mask, PARTIAL.dtype.element_ty)
    at = record(PARTIAL, tl.program_id(1), tl.program_id(0), 3) + tl.arange(0, 1)[:, None]
    if CENTER:
        v, mean, rest = centre(v, mask, tl.minimum(N - low, BLOCK_N))
        tl.store(at, mean)
        tl.store(at + 1, rest)
    tl.store(at + 2, tl.sum(v * v, axis=1)[:, None])


@triton.jit
def chunk(PARTIAL, start, N, BLOCK_N: tl.constexpr):
    # the partial results of some segments of a filter: where they are, and how many values each is of
    i = start + tl.arange(0, CHUNK).to(tl.int64)
    return record(PARTIAL, tl.program_id(1), i, 3), tl.maximum(tl.minimum(N - i * BLOCK_N, BLOCK_N), 0)


@triton.jit
def merged(PARTIAL, N, CENTER: tl.constexpr, BLOCK_N: tl.constexpr):
    # of a filter: mean, what rounding left of it, sum of squares about both
    dtype: tl.constexpr = PARTIAL.dtype.element_ty
    sums, squares = tl.zeros([CHUNK], dtype), tl.zeros([CHUNK], dtype)
    if CENTER:
        for start in range(0, tl.num_programs(0), CHUNK):
            at, count = chunk(PARTIAL, start, N, BLOCK_N)
            sums += tl.load(at, mask=count > 0, other=0.0) * count
    mean = tl.sum(sums, axis=0) / N
    # Chan: the segments' sums of squares, and their means' squared distances from the filter's mean
    sums = tl.zeros([CHUNK], dtype)
    for start in range(0, tl.num_programs(0), CHUNK):
        at, count = chunk(PARTIAL, start, N, BLOCK_N)
        squares += tl.load(at + 2, mask=count > 0, other=0.0)
        if CENTER:
            distance = tl.load(at, mask=count > 0, other=0.0) - mean + tl.load(at + 1, mask=count > 0, other=0.0)
            sums += distance * count
            squares += distance * distance * count
    rest = tl.sum(sums, axis=0) / N
    total = tl.sum(squares, axis=0) - rest * rest * N
    return mean, rest, tl.where(total < 0, 0.0, total)


@triton.jit(do_not_specialize=["START", "M"])
def filters_merge_kernel(
    V, G, W, MEAN, STAT, PARTIAL, START, M, N,  # as above
    EPS: tl.float64, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows, low, cols, mask = segment(START, N, BLOCK_N)
    v = load_rows(V + low, rows, cols, N, mask, STAT.dtype.element_ty)
    mean, rest, squares = merged(PARTIAL, N, MEAN is not None, BLOCK_N)
    stat, factor = statistic(squares, N, EPS, MEAN is not None)
    if tl.program_id(0) == 0:
        tl.store(STAT + START + tl.program_id(1), stat)
        if MEAN is not None:
            tl.store(MEAN + START + tl.program_id(1), mean + rest)
    if MEAN is not None:
        v = v - mean - rest
    store_filters(W + low, v * times(factor, G, rows, M), rows, cols, N, mask)


def forward(v, g, w, mean, stat, eps):
    """Fill w, mean and stat. Filters that fit a program are read once, longer ones again from L2."""
    M, N = v.shape
    align = alignment(w, N)
    if resident := forward_tile(N, v.element_size()):
        filters_forward_kernel[(cdiv(M, resident.BLOCK_M),)](
            v, g, w, mean, stat, M, N, EPS=eps, ALIGN=align, **resident._asdict()
        )
        return
    along, at_once, tile = segments(v, M, N, align)
    partial = accumulator(stat, at_once, along, 3)
    for start in range(0, M, at_once):
        grid = (along, min(at_once, M - start))
        filters_moments_kernel[grid](v, partial, start, N, CENTER=mean is not None, **tile)
        filters_merge_kernel[grid](v, g, w, mean, stat, partial, start, M, N, EPS=eps, **tile)
