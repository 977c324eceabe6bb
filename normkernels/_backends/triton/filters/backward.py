"""Filters, backward: dg = sum(dw xhat), dv = g / |v| (dw - xhat dg), xhat = v / |v|.

With a mean, dv = g rstd (dw - mean(dw) - xhat dg / N), xhat = (v - mean) rstd.
"""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator, alignment
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.values import inside, load_rows, rounded
from normkernels._backends.triton.filters.tiles import (
    CHUNK,
    load_filters,
    record,
    segment,
    segments,
    store_filters,
    store_stat,
    times,
)
from normkernels._backends.triton.rows.sizes import backward_tile


@triton.jit
def projected(d, xhat, along, total, N, CENTER: tl.constexpr):
    # d less its parts along xhat and, with a mean, along 1; along, total: the sums of d xhat and of d
    if CENTER:
        d = d - total / N - xhat * (along / N)
    else:
        d = d - xhat * along
    return d


@triton.jit(do_not_specialize=["M"])
def filters_backward_kernel(
    DW, V, G, MEAN, STAT, DV, DG,  # dw, v, dv: (M, N); g, mean, stat, dg: (M,)
    M, N, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_N)
    mask = inside(rows, cols, M, N)
    xhat, factor = load_filters(V, STAT, MEAN, rows, cols, N, mask, M)
    d = load_rows(DW, rows, cols, N, mask, factor.dtype)
    along = tl.sum(d * xhat, axis=1)[:, None]
    store_stat(DG, along, rows, M)
    d = projected(d, xhat, along, tl.sum(d, axis=1)[:, None], N, MEAN is not None)
    store_filters(DV, d * times(factor, G, rows, M), rows, cols, N, mask)


@triton.jit(do_not_specialize=["START", "M"])
def filters_sums_kernel(
    DW, V, MEAN, STAT, PARTIAL,  # partial: (wave, segments, 2), sums of dw xhat and of dw
    START, M, N, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows, low, cols, mask = segment(START, N, BLOCK_N)
    xhat, factor = load_filters(V + low, STAT, MEAN, rows, cols, N, mask, M)
    d = load_rows(DW + low, rows, cols, N, mask, factor.dtype)
    at = record(PARTIAL, tl.program_id(1), tl.program_id(0), 2) + tl.arange(0, 1)
    tl.store(at, tl.sum(d * xhat, axis=1))
    tl.store(at + 1, tl.sum(d, axis=1))


@triton.jit(do_not_specialize=["START", "M"])
def filters_spread_kernel(
    DW, V, G, MEAN, STAT, DV, DG, PARTIAL, START, M, N,  # as above
    ALIGN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows, low, cols, mask = segment(START, N, BLOCK_N)
    xhat, factor = load_filters(V + low, STAT, MEAN, rows, cols, N, mask, M)
    d = load_rows(DW + low, rows, cols, N, mask, factor.dtype)
    along, total = tl.zeros([CHUNK], factor.dtype), tl.zeros([CHUNK], factor.dtype)
    for start in range(0, tl.num_programs(0), CHUNK):
        i = start + tl.arange(0, CHUNK)
        at = record(PARTIAL, tl.program_id(1), i, 2)
        along += tl.load(at, mask=i < tl.num_programs(0), other=0.0)
        total += tl.load(at + 1, mask=i < tl.num_programs(0), other=0.0)
    along, total = tl.sum(along, axis=0), tl.sum(total, axis=0)
    if DG is not None:
        if tl.program_id(0) == 0:
            tl.store(DG + START + tl.program_id(1), rounded(along, DG.dtype.element_ty))
    d = projected(d, xhat, along, total, N, MEAN is not None)
    store_filters(DV + low, d * times(factor, G, rows, M), rows, cols, N, mask)


def backward(dw, v, g, mean, stat, dv, dg):
    """Fill dv and dg. Filters that fit a program are read once, longer ones again from L2."""
    M, N = v.shape
    align = alignment(dw, N)
    if resident := backward_tile(N, v.element_size(), "identity"):
        filters_backward_kernel[(cdiv(M, resident.BLOCK_M),)](
            dw, v, g, mean, stat, dv, dg, M, N, ALIGN=align, **resident._asdict()
        )
        return
    along, at_once, tile = segments(v, M, N, align)
    partial = accumulator(stat, at_once, along, 2)
    for start in range(0, M, at_once):
        grid = (along, min(at_once, M - start))
        filters_sums_kernel[grid](dw, v, mean, stat, partial, start, M, N, **tile)
        filters_spread_kernel[grid](dw, v, g, mean, stat, dv, dg, partial, start, M, N, **tile)
