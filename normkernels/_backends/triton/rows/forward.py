"""Rows, forward: y = act((s - mean) rstd (w + offset) + b), s = x + residual; without a mean, mean = 0 (RMS norm)."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.activations import activation
from normkernels._backends.triton.base.launch import accumulator, alignment, stride, wave
from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2
from normkernels._backends.triton.base.values import affine, inside, load_rows, number, rounded
from normkernels._backends.triton.rows.sizes import FORWARD_SEGMENT, forward_tile
from normkernels._backends.triton.rows.tiles import add_residual, centre, load_parameter


class Forward(NamedTuple):
    """x, residual, y, summed: (M, N); weight, bias: (N,); mean, rstd: (M,)."""

    x: Tensor
    residual: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    y: Tensor
    summed: Tensor | None
    mean: Tensor | None
    rstd: Tensor


@triton.jit(do_not_specialize=["M"])
def rows_forward_kernel(
    t, M, N, stride_x, stride_residual, EPS: tl.float64, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_N)
    mask = inside(rows, cols, M, N)
    x = load_rows(t.x, rows, cols, stride_x // ALIGN * ALIGN, mask, t.rstd.dtype.element_ty)
    if t.residual is not None:
        x = add_residual(x, t.residual, t.summed, rows, cols, stride_residual // ALIGN * ALIGN, mask, N)
    if t.mean is not None:
        x, mean, rest = centre(x, mask, N)
        tl.store(t.mean + rows[:, None], mean + rest, mask=rows[:, None] < M)
    # rstd = (mean(x^2) + eps)^(-1/2)
    rstd = tl.rsqrt(tl.sum(x * x, axis=1)[:, None] / N + number(EPS, x.dtype))
    tl.store(t.rstd + rows[:, None], rstd, mask=rows[:, None] < M)
    store_y(t, x, rstd, rows, cols, mask, N, OFFSET, SLOPE, ACT)


@triton.jit
def store_y(t, x, rstd, rows, cols, mask, N, OFFSET, SLOPE, ACT: tl.constexpr):
    w = load_parameter(t.weight, cols, N, OFFSET, rstd.dtype)
    b = load_parameter(t.bias, cols, N, 0.0, rstd.dtype)
    y = activation(affine(x * rstd, w, b), ACT, SLOPE)
    tl.store(t.y + rows[:, None] * N + cols[None, :], rounded(y, t.y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["START"])
def rows_moments_kernel(
    X, RESIDUAL, SUMMED, PARTIAL,  # partial: (wave, segments, 3), mean, what rounding left of it, sum of squares
    START, N, stride_x, stride_residual,
    CENTER: tl.constexpr, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows = START + tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = cols[None, :] < N
    x = load_rows(X, rows, cols, stride_x // ALIGN * ALIGN, mask, PARTIAL.dtype.element_ty)
    if RESIDUAL is not None:
        x = add_residual(x, RESIDUAL, SUMMED, rows, cols, stride_residual // ALIGN * ALIGN, mask, N)
    at = PARTIAL + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * 3
    at = at + tl.arange(0, 1)[:, None]
    if CENTER:
        x, mean, rest = centre(x, mask, tl.minimum(N - tl.program_id(1) * BLOCK_N, BLOCK_N))
        tl.store(at, mean)
        tl.store(at + 1, rest)
    tl.store(at + 2, tl.sum(x * x, axis=1)[:, None])


@triton.jit(do_not_specialize=["START"])
def rows_merge_kernel(
    t, PARTIAL, START, N, stride_x,  # t.x is the sum with a residual; partial as above
    EPS: tl.float64, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    segment = tl.arange(0, SEGMENTS)
    count = tl.maximum(tl.minimum(N - segment * BLOCK_N, BLOCK_N), 0)
    at = PARTIAL + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + segment) * 3
    squares = tl.load(at + 2, mask=count > 0, other=0.0)
    rows = START + tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = cols[None, :] < N
    x = load_rows(t.x, rows, cols, stride_x // ALIGN * ALIGN, mask, t.rstd.dtype.element_ty)
    if t.mean is not None:
        # Chan: the segments' sums of squares, and their means' squared distances from the row's mean
        means = tl.load(at, mask=count > 0, other=0.0)
        mean = tl.sum(means * count, axis=0) / N
        distance = means - mean + tl.load(at + 1, mask=count > 0, other=0.0)
        rest = tl.sum(distance * count, axis=0) / N
        squares += (distance - rest) * (distance - rest) * count
        x = x - mean - rest
    rstd = tl.rsqrt(tl.sum(squares, axis=0) / N + number(EPS, squares.dtype))
    if tl.program_id(1) == 0:
        tl.store(t.rstd + START + tl.program_id(0), rstd)
        if t.mean is not None:
            tl.store(t.mean + START + tl.program_id(0), mean + rest)
    store_y(t, x, rstd, rows, cols, mask, N, OFFSET, SLOPE, ACT)


def forward(a, bias: Tensor | None, mean: Tensor | None) -> None:
    """Fill y, summed, mean and rstd. Rows that fit a program are read once, longer ones again from L2."""
    M, N = a.x.shape
    align = alignment(a.x, N, stride(a.x), stride(a.residual))
    constants = {"EPS": a.eps, "OFFSET": a.weight_offset, "SLOPE": a.slope, "ACT": a.activation, "ALIGN": align}
    t = Forward(a.x, a.residual, a.weight, bias, a.y, a.summed, mean, a.rstd)
    resident = forward_tile(N, a.x.element_size())
    if resident:
        rows_forward_kernel[(cdiv(M, resident.BLOCK_M),)](
            t, M, N, stride(a.x), stride(a.residual), **constants, **resident._asdict()
        )
        return
    BLOCK_N, num_warps = FORWARD_SEGMENT.BLOCK_N, FORWARD_SEGMENT.num_warps
    segments, at_once = cdiv(N, BLOCK_N), min(M, wave(a.x, N * a.x.element_size()))
    partial = accumulator(a.rstd, at_once, segments, 3)
    s = a.x if a.residual is None else a.summed
    summed = t._replace(x=s, residual=None, summed=None)
    for start in range(0, M, at_once):
        grid = (min(at_once, M - start), segments)
        rows_moments_kernel[grid](
            a.x, a.residual, a.summed, partial, start, N, stride(a.x), stride(a.residual),
            CENTER=mean is not None, ALIGN=align, BLOCK_N=BLOCK_N, num_warps=num_warps,
        )  # fmt: skip
        rows_merge_kernel[grid](
            summed, partial, start, N, stride(s),
            **constants, BLOCK_N=BLOCK_N, SEGMENTS=next_power_of_2(segments), num_warps=num_warps,
        )  # fmt: skip
