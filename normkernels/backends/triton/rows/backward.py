"""Rows, backward: dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsummed, g = dy act'(u) (w + offset).

Without a mean (RMS norm) there is no mean(g).
"""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import derivative
from normkernels.backends.triton.base.launch import accumulator, alignment, programs, stride, wave
from normkernels.backends.triton.base.numbers import cdiv, next_power_of_2
from normkernels.backends.triton.base.sums import finalise
from normkernels.backends.triton.base.values import affine, inside, load_rows, rounded
from normkernels.backends.triton.rows.sizes import BACKWARD_SEGMENT, FORWARD_SEGMENT, GROUP, backward_tile
from normkernels.backends.triton.rows.tiles import load_parameter, load_stat


@triton.jit
def grads(
    DY, X, w, b, MEAN, RSTD, rows, cols, mask, M, stride_dy, stride_x, ACT: tl.constexpr, SLOPE
):  # fmt: skip
    # xhat = (x - mean) rstd, du = dy act'(u), g = du (w + offset), rstd; du and g are 0 outside the mask, for dy is
    rstd = load_stat(RSTD, rows, M)
    xhat = load_rows(X, rows, cols, stride_x, mask, rstd.dtype)
    du = load_rows(DY, rows, cols, stride_dy, mask, rstd.dtype)
    if MEAN is not None:
        xhat = xhat - load_stat(MEAN, rows, M)
    xhat = xhat * rstd
    if ACT != "identity":
        du = du * derivative(affine(xhat, w, b), ACT, SLOPE)
    return xhat, du, affine(du, w, None), rstd


@triton.jit
def store_dx(DX, dx, DSUMMED, rows, cols, mask, N, stride_dsummed):
    if DSUMMED is not None:
        dx = dx + load_rows(DSUMMED, rows, cols, stride_dsummed, mask, dx.dtype)
    tl.store(DX + rows[:, None] * N + cols[None, :], rounded(dx, DX.dtype.element_ty), mask=mask)


@triton.jit
def store_partial(PARTIAL, total, row, cols, N):
    if PARTIAL is not None:
        tl.store(PARTIAL + row.to(tl.int64) * N + cols, tl.sum(total, axis=0), mask=cols < N)


@triton.jit(do_not_specialize=["M"])
def rows_backward_kernel(
    DY, DSUMMED, X, W, B, MEAN, RSTD, DX, PARTIAL_W, PARTIAL_B,  # as in the schema; partials: (programs, N)
    M, N, stride_dy, stride_dsummed, stride_x,
    OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    cols = tl.arange(0, BLOCK_N)
    dw = tl.zeros([BLOCK_M, BLOCK_N], RSTD.dtype.element_ty)
    db = tl.zeros([BLOCK_M, BLOCK_N], RSTD.dtype.element_ty)
    w = load_parameter(W, cols, N, OFFSET, RSTD.dtype.element_ty)
    b = load_parameter(B if ACT != "identity" else None, cols, N, 0.0, RSTD.dtype.element_ty)
    STAGES: tl.constexpr = (
        3 if BLOCK_M * BLOCK_N <= 1024 else 2
    )  # tiles in flight, within a multiprocessor's shared memory
    for block in tl.range(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.num_programs(0), num_stages=STAGES):
        rows = (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
        mask = inside(rows, cols, M, N)
        xhat, du, g, rstd = grads(
            DY, X, w, b, MEAN, RSTD, rows, cols, mask, M, stride_dy // ALIGN * ALIGN, stride_x // ALIGN * ALIGN,
            ACT, SLOPE,
        )  # fmt: skip
        dx = g - xhat * (tl.sum(g * xhat, axis=1)[:, None] / N)
        if MEAN is not None:
            dx = dx - tl.sum(g, axis=1)[:, None] / N
        store_dx(DX, dx * rstd, DSUMMED, rows, cols, mask, N, stride_dsummed // ALIGN * ALIGN)
        dw += du * xhat
        db += du
    store_partial(PARTIAL_W, dw, tl.program_id(0), cols, N)
    store_partial(PARTIAL_B, db, tl.program_id(0), cols, N)


@triton.jit(do_not_specialize=["START", "M"])
def rows_sums_kernel(
    DY, X, W, B, MEAN, RSTD, SUMS,  # sums: (wave, segments, 2), of g xhat and of g
    START, M, N, stride_dy, stride_x,
    OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows = START + tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    w = load_parameter(W, cols, N, OFFSET, RSTD.dtype.element_ty)
    b = load_parameter(B if ACT != "identity" else None, cols, N, 0.0, RSTD.dtype.element_ty)
    xhat, _, g, _ = grads(
        DY, X, w, b, MEAN, RSTD, rows, cols, cols[None, :] < N, M,
        stride_dy // ALIGN * ALIGN, stride_x // ALIGN * ALIGN, ACT, SLOPE,
    )  # fmt: skip
    at = SUMS + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * 2 + tl.arange(0, 1)
    tl.store(at, tl.sum(g * xhat, axis=1))
    if MEAN is not None:
        tl.store(at + 1, tl.sum(g, axis=1))


@triton.jit(do_not_specialize=["START", "END", "M", "rows_each", "segments"])
def rows_spread_kernel(
    DY, DSUMMED, X, W, B, MEAN, RSTD, DX, PARTIAL_W, PARTIAL_B, SUMS,  # sums as above; partials: (row groups, N)
    START, END, M, N, stride_dy, stride_dsummed, stride_x, rows_each, segments,
    OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_N: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = cols[None, :] < N
    segment = tl.arange(0, SEGMENTS)
    dw = tl.zeros([1, BLOCK_N], RSTD.dtype.element_ty)
    db = tl.zeros([1, BLOCK_N], RSTD.dtype.element_ty)
    w = load_parameter(W, cols, N, OFFSET, RSTD.dtype.element_ty)
    b = load_parameter(B if ACT != "identity" else None, cols, N, 0.0, RSTD.dtype.element_ty)
    first = START + tl.program_id(0) * rows_each
    for row in tl.range(first, tl.minimum(first + rows_each, END), num_stages=2):
        rows = (row + tl.arange(0, 1)).to(tl.int64)
        xhat, du, g, rstd = grads(
            DY, X, w, b, MEAN, RSTD, rows, cols, mask, M, stride_dy // ALIGN * ALIGN, stride_x // ALIGN * ALIGN,
            ACT, SLOPE,
        )  # fmt: skip
        at = SUMS + (row - START) * segments * 2 + segment * 2
        dx = g - xhat * (tl.sum(tl.load(at, mask=segment < segments, other=0.0), axis=0) / N)
        if MEAN is not None:
            dx = dx - tl.sum(tl.load(at + 1, mask=segment < segments, other=0.0), axis=0) / N
        store_dx(DX, dx * rstd, DSUMMED, rows, cols, mask, N, stride_dsummed // ALIGN * ALIGN)
        dw += du * xhat
        db += du
    store_partial(PARTIAL_W, dw, first // rows_each, cols, N)
    store_partial(PARTIAL_B, db, first // rows_each, cols, N)


def backward(dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias, weight_offset, activation, slope):
    """Fill dx, dweight and dbias. Rows that fit a program are read once, longer ones again from L2."""
    M, N = x.shape
    strides = stride(dy), stride(dsummed), stride(x)
    align = alignment(x, N, *strides)
    constants = {"OFFSET": weight_offset, "ACT": activation, "SLOPE": slope, "ALIGN": align}
    resident = backward_tile(N, x.element_size(), activation)
    if resident:
        P = programs(x, cdiv(M, resident.BLOCK_M), resident.num_warps)
    else:
        at_once = wave(x, 2 * N * x.element_size())
        rows_each = min(GROUP, at_once, M)
        at_once = at_once // rows_each * rows_each
        P = cdiv(M, rows_each)
    partial_w = None if dweight is None else accumulator(rstd, P, N)
    partial_b = None if dbias is None else accumulator(rstd, P, N)
    if resident:
        rows_backward_kernel[(P,)](
            dy, dsummed, x, weight, bias, mean, rstd, dx, partial_w, partial_b, M, N, *strides,
            **constants, **resident._asdict(),
        )  # fmt: skip
    else:
        long_rows(
            dy, dsummed, x, weight, bias, mean, rstd, dx, partial_w, partial_b, strides, at_once, rows_each, constants
        )
    finalise(partial_w, partial_b, dweight, dbias)


def long_rows(
    dy, dsummed, x, weight, bias, mean, rstd, dx, partial_w, partial_b, strides, at_once, rows_each, constants
):
    """A wave of rows at a time: the sums of every segment, then dx and the partial parameter gradients."""
    M, N = x.shape
    segments, spread = cdiv(N, FORWARD_SEGMENT.BLOCK_N), BACKWARD_SEGMENT[x.element_size()]
    sums = accumulator(rstd, min(at_once, M), segments, 2)
    stride_dy, stride_dsummed, stride_x = strides
    for start in range(0, M, at_once):
        end = min(start + at_once, M)
        rows_sums_kernel[(end - start, segments)](
            dy, x, weight, bias, mean, rstd, sums, start, M, N, stride_dy, stride_x, **constants,
            BLOCK_N=FORWARD_SEGMENT.BLOCK_N, num_warps=FORWARD_SEGMENT.num_warps,
        )  # fmt: skip
        rows_spread_kernel[(cdiv(end - start, rows_each), cdiv(N, spread.BLOCK_N))](
            dy, dsummed, x, weight, bias, mean, rstd, dx, partial_w, partial_b, sums, start, end, M, N,
            stride_dy, stride_dsummed, stride_x, rows_each, segments, **constants,
            BLOCK_N=spread.BLOCK_N, SEGMENTS=next_power_of_2(segments),
            num_warps=spread.num_warps,
        )  # fmt: skip
