"""Rows, forward: y = act((s - mean) rstd (w + offset) + b), s = x + residual; without a mean, mean = 0 (RMS norm)."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import activation
from normkernels.backends.triton.base.launch import accumulator, alignment, stride, wave
from normkernels.backends.triton.base.numbers import cdiv, next_power_of_2
from normkernels.backends.triton.base.values import affine, inside, load_rows, number, rounded
from normkernels.backends.triton.rows.sizes import FORWARD_SEGMENT, forward_tile
from normkernels.backends.triton.rows.tiles import add_residual, centre, load_parameter


@triton.jit(do_not_specialize=["M"])
def rows_forward_kernel(
    X, RESIDUAL, W, B, Y, SUMMED, MEAN, RSTD,  # x, residual, y, summed: (M, N); w, b: (N,); mean, rstd: (M,)
    M, N, stride_x, stride_residual,
    EPS: tl.float64, OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_N)
    mask = inside(rows, cols, M, N)
    x = load_rows(X, rows, cols, stride_x // ALIGN * ALIGN, mask, RSTD.dtype.element_ty)
    if RESIDUAL is not None:
        x = add_residual(x, RESIDUAL, SUMMED, rows, cols, stride_residual // ALIGN * ALIGN, mask, N)
    if MEAN is not None:
        x, mean, rest = centre(x, mask, N)
        tl.store(MEAN + rows[:, None], mean + rest, mask=rows[:, None] < M)
    # rstd = (mean(x^2) + eps)^(-1/2)
    rstd = tl.rsqrt(tl.sum(x * x, axis=1)[:, None] / N + number(EPS, x.dtype))
    tl.store(RSTD + rows[:, None], rstd, mask=rows[:, None] < M)
    w = load_parameter(W, cols, N, OFFSET, rstd.dtype)
    b = load_parameter(B, cols, N, 0.0, rstd.dtype)
    y = activation(affine(x * rstd, w, b), ACT, SLOPE)
    tl.store(Y + rows[:, None] * N + cols[None, :], rounded(y, Y.dtype.element_ty), mask=mask)


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
    X, W, B, Y, MEAN, RSTD, PARTIAL, START, N, stride_x,  # partial as above
    EPS: tl.float64, OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_N: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    segment = tl.arange(0, SEGMENTS)
    count = tl.maximum(tl.minimum(N - segment * BLOCK_N, BLOCK_N), 0)
    at = PARTIAL + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + segment) * 3
    squares = tl.load(at + 2, mask=count > 0, other=0.0)
    rows = START + tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = cols[None, :] < N
    x = load_rows(X, rows, cols, stride_x // ALIGN * ALIGN, mask, RSTD.dtype.element_ty)
    if MEAN is not None:
        # Chan: the segments' sums of squares, and their means' squared distances from the row's mean
        means = tl.load(at, mask=count > 0, other=0.0)
        mean = tl.sum(means * count, axis=0) / N
        distance = means - mean + tl.load(at + 1, mask=count > 0, other=0.0)
        rest = tl.sum(distance * count, axis=0) / N
        squares += (distance - rest) * (distance - rest) * count
        x = x - mean - rest
    rstd = tl.rsqrt(tl.sum(squares, axis=0) / N + number(EPS, squares.dtype))
    if tl.program_id(1) == 0:
        tl.store(RSTD + START + tl.program_id(0), rstd)
        if MEAN is not None:
            tl.store(MEAN + START + tl.program_id(0), mean + rest)
    w = load_parameter(W, cols, N, OFFSET, rstd.dtype)
    b = load_parameter(B, cols, N, 0.0, rstd.dtype)
    y = activation(affine(x * rstd, w, b), ACT, SLOPE)
    tl.store(Y + rows[:, None] * N + cols[None, :], rounded(y, Y.dtype.element_ty), mask=mask)


def forward(x, residual, weight, bias, y, summed, mean, rstd, eps, weight_offset, activation, slope):
    """Fill y, summed, mean and rstd. Rows that fit a program are read once, longer ones again from L2."""
    M, N = x.shape
    align = alignment(x, N, stride(x), stride(residual))
    constants = {"EPS": eps, "OFFSET": weight_offset, "ACT": activation, "SLOPE": slope, "ALIGN": align}
    resident = forward_tile(N, x.element_size())
    if resident:
        rows_forward_kernel[(cdiv(M, resident.BLOCK_M),)](
            x, residual, weight, bias, y, summed, mean, rstd, M, N, stride(x), stride(residual),
            **constants, **resident._asdict(),
        )  # fmt: skip
        return
    BLOCK_N, num_warps = FORWARD_SEGMENT.BLOCK_N, FORWARD_SEGMENT.num_warps
    segments, at_once = cdiv(N, BLOCK_N), min(M, wave(x, N * x.element_size()))
    partial = accumulator(rstd, at_once, segments, 3)
    s = x if residual is None else summed
    for start in range(0, M, at_once):
        grid = (min(at_once, M - start), segments)
        rows_moments_kernel[grid](
            x, residual, summed, partial, start, N, stride(x), stride(residual),
            CENTER=mean is not None, ALIGN=align, BLOCK_N=BLOCK_N, num_warps=num_warps,
        )  # fmt: skip
        rows_merge_kernel[grid](
            s, weight, bias, y, mean, rstd, partial, start, N, stride(s),
            **constants, BLOCK_N=BLOCK_N, SEGMENTS=next_power_of_2(segments), num_warps=num_warps,
        )  # fmt: skip
