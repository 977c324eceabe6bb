"""Rows: what the kernels share on a loaded tile."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.values import load_rows, number, rounded


@triton.jit
def load_stat(P, rows, M):
    return tl.load(P + rows, mask=rows < M, other=0.0)[:, None]


@triton.jit
def add_residual(x, R, SUMMED, rows, cols, stride, mask, N):
    # s = x + residual, as rounded in memory
    s = rounded(x + load_rows(R, rows, cols, stride, mask, x.dtype), SUMMED.dtype.element_ty)
    tl.store(SUMMED + rows[:, None] * N + cols[None, :], s, mask=mask)
    return s.to(x.dtype)


@triton.jit
def centre(x, mask, count):
    # x - mean, mean: two steps, for rounding leaves the first mean up to ulp(mean) / 2 off
    mean = tl.sum(x, axis=1)[:, None] / count
    x = tl.where(mask, x - mean, 0.0)
    rest = tl.sum(x, axis=1)[:, None] / count
    return tl.where(mask, x - rest, 0.0), mean, rest


@triton.jit
def load_parameter(P, cols, N, OFFSET, dtype: tl.constexpr):
    # p + offset as (1, BLOCK_N), or None
    if P is not None:
        return tl.load(P + cols[None, :], mask=cols[None, :] < N, other=0.0).to(dtype) + number(OFFSET, dtype)
