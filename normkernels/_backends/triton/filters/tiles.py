"""Filters: what the kernels of weight norm and weight standardisation share. A filter is a row of (M, N).

Without a mean a filter's statistic is its norm, with one it is rstd.
"""

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import wave
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.values import load_rows, rounded
from normkernels._backends.triton.rows.sizes import FORWARD_SEGMENT
from normkernels._backends.triton.rows.tiles import load_stat

CHUNK = tl.constexpr(256)  # partial results of a filter that are loaded at a time


@triton.jit
def inverse(norm):
    # 1 / norm, and 0 for a filter of zeros, which has no direction
    return tl.where(norm > 0, 1 / tl.where(norm > 0, norm, 1.0), 0.0)


@triton.jit
def load_filters(V, STAT, MEAN, rows, cols, stride, mask, M):
    # xhat = (v - mean) rstd or v / norm, and that factor
    factor = load_stat(STAT, rows, M)
    xhat = load_rows(V, rows, cols, stride, mask, factor.dtype)
    if MEAN is None:
        factor = inverse(factor)
    else:
        xhat = xhat - load_stat(MEAN, rows, M)
    return xhat * factor, factor


@triton.jit
def store_filters(W, w, rows, cols, stride, mask):
    tl.store(W + rows[:, None] * stride + cols[None, :], rounded(w, W.dtype.element_ty), mask=mask)


@triton.jit
def store_stat(P, stat, rows, M):
    if P is not None:
        tl.store(P + rows[:, None], rounded(stat, P.dtype.element_ty), mask=rows[:, None] < M)


@triton.jit
def times(factor, G, rows, M):
    if G is not None:
        factor = factor * load_stat(G, rows, M).to(factor.dtype)
    return factor


@triton.jit
def segment(START, N, BLOCK_N: tl.constexpr):
    # of a program: its filter, where its values start in that, columns and mask
    rows = START + tl.program_id(1).to(tl.int64) + tl.arange(0, 1)
    low = tl.program_id(0).to(tl.int64) * BLOCK_N
    cols = tl.arange(0, BLOCK_N)
    return rows, low, cols, cols[None, :] < N - low


@triton.jit
def record(PARTIAL, row, i, FIELDS: tl.constexpr):
    # of segment i of filter `row` of a wave, in (wave, segments, fields)
    return PARTIAL + (row.to(tl.int64) * tl.num_programs(0) + i) * FIELDS


def segments(t: Tensor, M: int, N: int, align: int) -> tuple[int, int, dict[str, int]]:
    """How many segments a long filter has, how many filters to take at a time, and the constants of a launch."""
    tile = {"ALIGN": align, "BLOCK_N": FORWARD_SEGMENT.BLOCK_N, "num_warps": FORWARD_SEGMENT.num_warps}
    return cdiv(N, FORWARD_SEGMENT.BLOCK_N), min(M, wave(t, N * t.element_size())), tile
