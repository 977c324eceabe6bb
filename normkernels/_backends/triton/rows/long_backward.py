"""Long rows, backward: the means of g xhat and of g of each row, then dx and the parameter gradients down the columns.

The second kernel reads x and dy again, what the first one read last still from L2. Narrow accesses go to registers
alone, so there the next tile is asked for a turn before its own.
"""

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import affine, rounded
from normkernels._backends.triton.rows.sizes import segment_form, strip_form
from normkernels._backends.triton.rows.tiles import (
    columns,
    grads,
    load_gate,
    load_pair,
    load_parameter,
    load_piece,
    load_stat,
    sample,
    samples,
    shifted,
    store_gate_grad,
    store_piece,
)


@triton.jit(do_not_specialize=["M", "B"])
def rows_long_means_kernel(
    t, MEANS, M, N, B, strides, OFFSET: tl.float64, SLOPE: tl.float64,  # means: (2, M), of g xhat and of g
    ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    STAGES: tl.constexpr = FORM.STAGES
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    N = N // FORM.ALIGN * FORM.ALIGN
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    rstd = load_stat(t.rstd, row, M)
    mean = rstd if t.mean is None else load_stat(t.mean, row, M)
    row = row[:, None]
    weight = t.weight
    bias = t.bias if ACT != "identity" else None
    if B is not None:
        which, _ = sample(B)
        weight = shifted(weight, which.to(tl.int64) * N)
        bias = shifted(bias, which.to(tl.int64) * N)
    sum_gx = tl.zeros([1, BLOCK_N], dtype)
    sum_g = tl.zeros([1, BLOCK_N], dtype)
    if FORM.AHEAD:
        ahead = load_pair(t.x, t.dy, 0, row, strides, M, N, FORM)
    for low in tl.range(0, N, BLOCK_N, num_stages=STAGES):
        w = load_parameter(shifted(weight, low), 0, N - low, OFFSET, dtype, FORM)
        b = load_parameter(shifted(bias, low), 0, N - low, None, dtype, FORM)
        if FORM.AHEAD:
            pair = ahead
            above = low + BLOCK_N
            ahead = load_pair(t.x + above, t.dy + above, 0, row, strides, M, N - above, FORM)
        else:
            pair = load_pair(t.x + low, t.dy + low, 0, row, strides, M, N - low, FORM)
        gate = load_gate(shifted(t.gate, low), 0, row, strides.gate, M, N - low, FORM)
        xhat, du = grads(pair, gate, w, b, mean, rstd, SLOPE, ACT, t.mean is not None)
        g = affine(du, w, None)
        sum_gx += g * xhat
        sum_g += g
    if t.mean is None:
        tl.store(MEANS + row, tl.sum(sum_gx, axis=1)[:, None] / N)
    else:
        mean_gx, mean_g = both_sums(sum_gx, sum_g)
        tl.store(MEANS + row, mean_gx[:, None] / N)
        tl.store(MEANS + M + row, mean_g[:, None] / N)


@triton.jit
def load_strip(t, low, block, first, strides, end, N, FORM: tl.constexpr):
    # x and dy of some rows
    BLOCK_M: tl.constexpr = FORM.BLOCK_M
    rows = (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None] + first
    return load_pair(t.x + low, t.dy + low, 0, rows, strides, end, N - low, FORM)


@triton.jit(do_not_specialize=["M", "B"])
def rows_long_backward_kernel(
    t, MEANS, DW, DB, M, N, B, strides, OFFSET: tl.float64, SLOPE: tl.float64,  # means as above
    ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    BLOCK_M: tl.constexpr = FORM.BLOCK_M
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    STAGES: tl.constexpr = FORM.STAGES
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    N = N // FORM.ALIGN * FORM.ALIGN
    strip = tl.program_id(0)
    first = 0
    end = M
    weight = t.weight
    bias = t.bias if ACT != "identity" or t.dgate is not None else None
    if B is not None:
        which, each = sample(B)
        strip -= which * each
        first = which.to(tl.int64) * (M // B)
        end = first + M // B
        weight = shifted(weight, which.to(tl.int64) * N)
        bias = shifted(bias, which.to(tl.int64) * N)
        DW = shifted(DW, which.to(tl.int64) * N)
        DB = shifted(DB, which.to(tl.int64) * N)
    low = strip * BLOCK_N
    dw = tl.zeros([BLOCK_M, BLOCK_N], dtype)
    db = tl.zeros([BLOCK_M, BLOCK_N], dtype)
    w = load_parameter(shifted(weight, low), 0, N - low, OFFSET, dtype, FORM)
    b = load_parameter(shifted(bias, low), 0, N - low, None, dtype, FORM)
    blocks = tl.cdiv(end - first, BLOCK_M)
    if FORM.AHEAD:
        ahead = load_strip(t, low, blocks - 1, first, strides, end, N, FORM)
    for i in tl.range(0, blocks, num_stages=STAGES):
        # the last rows first: they were read last, so they may still be in L2
        rows = ((blocks - 1 - i) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64) + first
        rstd = load_stat(t.rstd, rows, end)
        mean = rstd if t.mean is None else load_stat(t.mean, rows, end)
        mean_gx = load_stat(MEANS, rows, end)
        mean_g = rstd if t.mean is None else load_stat(MEANS + M, rows, end)
        rows = rows[:, None]
        if FORM.AHEAD:
            pair = ahead
            ahead = load_strip(t, low, tl.maximum(blocks - 2 - i, 0), first, strides, end, N, FORM)
        else:
            pair = load_strip(t, low, blocks - 1 - i, first, strides, end, N, FORM)
        gate = load_gate(shifted(t.gate, low), 0, rows, strides.gate, end, N - low, FORM)
        xhat, du = grads(pair, gate, w, b, mean, rstd, SLOPE, ACT, t.mean is not None)
        if t.dgate is not None:
            u = affine(xhat, w, b)
            store_gate_grad(t.dgate + low, pair[1], gate, u, 0, rows, N, end, N - low, SLOPE, ACT, FORM)
        dx = affine(du, w, None) - xhat * mean_gx
        if t.mean is not None:
            dx = dx - mean_g
        dx = dx * rstd
        if t.dsummed is not None:
            dx = dx + load_piece(t.dsummed + low, 0, rows, strides.dsummed, end, N - low, dtype, FORM)
        store_piece(t.dx + low, dx, 0, rows, N, end, N - low, FORM)
        dw += du * xhat
        db += du
    store_gradient(DW, dw, low, N, FORM)
    store_gradient(DB, db, low, N, FORM)


@triton.jit
def store_gradient(P, total, low, N, FORM: tl.constexpr):
    if P is not None:
        cols = columns(0, FORM)
        value = rounded(tl.sum(total, axis=0)[None, :], P.dtype.element_ty)
        tl.store(P + low + cols, value, mask=cols < N - low)


def long_backward(t, a, dbias: Tensor | None, strides, align: int) -> None:
    """Fill dx, dweight, dbias and dgate; t: what the kernels of the family are given, a: the arguments of an op."""
    M, N = a.dx.shape
    constants = {"OFFSET": a.weight_offset, "SLOPE": a.slope, "ACT": a.activation}
    shift = a.weight_offset != 0
    B = samples(t.weight, t.bias)
    means = accumulator(a.rstd, 2, M)
    chosen = N, a.x.element_size(), align, shift, a.gate is not None
    segments, strip = segment_form(*chosen, backward=True), strip_form(*chosen)
    rows_long_means_kernel[(M,)](
        t._replace(dx=None, dgate=None, dsummed=None), means, M, N, B, strides, **constants, **segments
    )
    grid = ((B or 1) * cdiv(N, strip["FORM"].BLOCK_N),)
    rows_long_backward_kernel[grid](t, means, a.dweight, dbias, M, N, B, strides, **constants, **strip)
