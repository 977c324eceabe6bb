"""Rows, backward: dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsummed, g = dy act'(u) (w + offset).

Without a mean (RMS norm) there is no mean(g).
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.activations import derivative
from normkernels._backends.triton.base.launch import accumulator, alignment, programs, stride, wave
from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.base.values import affine, inside, load_rows, rounded
from normkernels._backends.triton.rows.sizes import BACKWARD_SEGMENT, FORWARD_SEGMENT, GROUP, backward_tile
from normkernels._backends.triton.rows.tiles import load_parameter, load_stat


class Backward(NamedTuple):
    """dy, dsummed, x, dx: (M, N); weight, bias: (N,); mean, rstd: (M,); partials: (programs or groups of rows, N)."""

    dy: Tensor
    dsummed: Tensor | None
    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    rstd: Tensor
    dx: Tensor | None
    partial_w: Tensor | None
    partial_b: Tensor | None


class Strides(NamedTuple):
    """Of the rows."""

    dy: int
    dsummed: int
    x: int


@triton.jit
def grads(t, w, b, rows, cols, mask, M, strides, SLOPE, ACT: tl.constexpr, ALIGN: tl.constexpr):
    # xhat = (x - mean) rstd, du = dy act'(u), g = du (w + offset), rstd; du and g are 0 outside the mask, for dy is
    stride_dy, stride_x = strides.dy // ALIGN * ALIGN, strides.x // ALIGN * ALIGN
    rstd = load_stat(t.rstd, rows, M)
    xhat = load_rows(t.x, rows, cols, stride_x, mask, rstd.dtype)
    du = load_rows(t.dy, rows, cols, stride_dy, mask, rstd.dtype)
    if t.mean is not None:
        xhat = xhat - load_stat(t.mean, rows, M)
    xhat = xhat * rstd
    if ACT != "identity":
        du = du * derivative(affine(xhat, w, b), ACT, SLOPE)
    return xhat, du, affine(du, w, None), rstd


@triton.jit
def store_dx(t, dx, rows, cols, mask, N, stride_dsummed):
    if t.dsummed is not None:
        dx = dx + load_rows(t.dsummed, rows, cols, stride_dsummed, mask, dx.dtype)
    tl.store(t.dx + rows[:, None] * N + cols[None, :], rounded(dx, t.dx.dtype.element_ty), mask=mask)


@triton.jit
def store_partial(PARTIAL, total, row, cols, N):
    if PARTIAL is not None:
        tl.store(PARTIAL + row.to(tl.int64) * N + cols, tl.sum(total, axis=0), mask=cols < N)


@triton.jit(do_not_specialize=["M"])
def rows_backward_kernel(
    t, M, N, strides, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    cols = tl.arange(0, BLOCK_N)
    dw = tl.zeros([BLOCK_M, BLOCK_N], dtype)
    db = tl.zeros([BLOCK_M, BLOCK_N], dtype)
    w = load_parameter(t.weight, cols, N, OFFSET, dtype)
    b = load_parameter(t.bias if ACT != "identity" else None, cols, N, 0.0, dtype)
    # tiles in flight, within a multiprocessor's shared memory
    STAGES: tl.constexpr = 3 if BLOCK_M * BLOCK_N <= 1024 else 2
    for block in tl.range(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.num_programs(0), num_stages=STAGES):
        rows = (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
        mask = inside(rows, cols, M, N)
        xhat, du, g, rstd = grads(t, w, b, rows, cols, mask, M, strides, SLOPE, ACT, ALIGN)
        if t.mean is not None:  # one reduction of both costs the barriers of one
            mean_gx, mean_g = tl.split(tl.sum(tl.join(g * xhat, g), axis=1) / N)
            dx = g - mean_g[:, None] - xhat * mean_gx[:, None]
        else:
            dx = g - xhat * (tl.sum(g * xhat, axis=1)[:, None] / N)
        store_dx(t, dx * rstd, rows, cols, mask, N, strides.dsummed // ALIGN * ALIGN)
        dw += du * xhat
        db += du
    store_partial(t.partial_w, dw, tl.program_id(0), cols, N)
    store_partial(t.partial_b, db, tl.program_id(0), cols, N)


@triton.jit(do_not_specialize=["START", "M"])
def rows_sums_kernel(
    t, SUMS, START, M, N, strides,  # sums: (wave, segments, 2), of g xhat and of g
    OFFSET: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    rows = START + tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    w = load_parameter(t.weight, cols, N, OFFSET, t.rstd.dtype.element_ty)
    b = load_parameter(t.bias if ACT != "identity" else None, cols, N, 0.0, t.rstd.dtype.element_ty)
    xhat, _, g, _ = grads(t, w, b, rows, cols, cols[None, :] < N, M, strides, SLOPE, ACT, ALIGN)
    at = SUMS + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * 2 + tl.arange(0, 1)
    tl.store(at, tl.sum(g * xhat, axis=1))
    if t.mean is not None:
        tl.store(at + 1, tl.sum(g, axis=1))


@triton.jit(do_not_specialize=["START", "END", "rows_each", "segments"])
def rows_spread_kernel(
    t, SUMS, START, END, N, strides, rows_each, segments,  # rows START to END, so many to a program; sums as above
    OFFSET: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    ALIGN: tl.constexpr = FORM.ALIGN
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    N = N // ALIGN * ALIGN
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = cols[None, :] < N
    segment = tl.arange(0, FORM.SEGMENTS)
    dw = tl.zeros([1, BLOCK_N], dtype)
    db = tl.zeros([1, BLOCK_N], dtype)
    w = load_parameter(t.weight, cols, N, OFFSET, dtype)
    b = load_parameter(t.bias if ACT != "identity" else None, cols, N, 0.0, dtype)
    first = START + tl.program_id(0) * rows_each
    for row in tl.range(first, tl.minimum(first + rows_each, END), num_stages=2):
        rows = (row + tl.arange(0, 1)).to(tl.int64)
        xhat, du, g, rstd = grads(t, w, b, rows, cols, mask, END, strides, SLOPE, ACT, ALIGN)
        at = SUMS + (row - START) * segments * 2 + segment * 2
        dx = g - xhat * (tl.sum(tl.load(at, mask=segment < segments, other=0.0), axis=0) / N)
        if t.mean is not None:
            dx = dx - tl.sum(tl.load(at + 1, mask=segment < segments, other=0.0), axis=0) / N
        store_dx(t, dx * rstd, rows, cols, mask, N, strides.dsummed // ALIGN * ALIGN)
        dw += du * xhat
        db += du
    store_partial(t.partial_w, dw, first // rows_each, cols, N)
    store_partial(t.partial_b, db, first // rows_each, cols, N)


class Spread(NamedTuple):
    """The constants of a segment that is walked down some rows, each of SEGMENTS segments or fewer."""

    ALIGN: int
    BLOCK_N: int
    SEGMENTS: int


def backward(a, bias: Tensor | None, mean: Tensor | None, dbias: Tensor | None) -> None:
    """Fill dx, dweight and dbias. Rows that fit a program are read once, longer ones again from L2."""
    M, N = a.x.shape
    strides = Strides(stride(a.dy), stride(a.dsummed), stride(a.x))
    align = alignment(a.x, N, *strides)
    constants = {"OFFSET": a.weight_offset, "SLOPE": a.slope, "ACT": a.activation}
    resident = backward_tile(N, a.x.element_size(), a.activation)
    if resident:
        P = programs(a.x, cdiv(M, resident.BLOCK_M), resident.num_warps)
    else:
        at_once = wave(a.x, 2 * N * a.x.element_size())
        rows_each = min(GROUP, at_once, M)
        at_once = at_once // rows_each * rows_each
        P = cdiv(M, rows_each)
    partial_w = None if a.dweight is None else accumulator(a.rstd, P, N)
    partial_b = None if dbias is None else accumulator(a.rstd, P, N)
    t = Backward(a.dy, a.dsummed, a.x, a.weight, bias, mean, a.rstd, a.dx, partial_w, partial_b)
    if resident:
        rows_backward_kernel[(P,)](t, M, N, strides, **constants, ALIGN=align, **resident._asdict())
    else:
        long_rows(t, strides, at_once, rows_each, constants, align)
    finalise(partial_w, partial_b, a.dweight, dbias)


def long_rows(t: Backward, strides: Strides, at_once: int, rows_each: int, constants: dict, align: int) -> None:
    """A wave of rows at a time: the sums of every segment, then dx and the partial parameter gradients."""
    M, N = t.x.shape
    segments, spread = cdiv(N, FORWARD_SEGMENT.BLOCK_N), BACKWARD_SEGMENT[t.x.element_size()]
    sums, read = accumulator(t.rstd, min(at_once, M), segments, 2), t._replace(dx=None, partial_w=None, partial_b=None)
    form = Spread(align, spread.BLOCK_N, next_power_of_2(segments))
    for start in range(0, M, at_once):
        end = min(start + at_once, M)
        rows_sums_kernel[(end - start, segments)](
            read, sums, start, M, N, strides, **constants,
            ALIGN=align, BLOCK_N=FORWARD_SEGMENT.BLOCK_N, num_warps=FORWARD_SEGMENT.num_warps,
        )  # fmt: skip
        rows_spread_kernel[(cdiv(end - start, rows_each), cdiv(N, spread.BLOCK_N))](
            t, sums, start, end, N, strides, rows_each, segments, **constants, FORM=form, num_warps=spread.num_warps
        )
