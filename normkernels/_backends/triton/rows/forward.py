"""Rows, forward: u = (s - mean) rstd (w + offset) + b, s = x + residual; y = act(u), or u act(gate).

Without a mean, mean = 0 (RMS norm).
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base import clusters
from normkernels._backends.triton.base.launch import alignment
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import affine, number, rounded
from normkernels._backends.triton.rows.long_forward import Strides, long_forward
from normkernels._backends.triton.rows.runs import distances, runs
from normkernels._backends.triton.rows.sizes import forward_form, segment_form
from normkernels._backends.triton.rows.tiles import (
    added,
    completed,
    length,
    load_gate,
    load_parameter,
    load_piece,
    minus,
    products,
    sample,
    samples,
    shifted,
    store_piece,
)


class Forward(NamedTuple):
    """x, residual, gate: M rows of N, in runs; y, summed: (M, N); weight, bias: (N,) or (B, N); mean, rstd: (M,)."""

    x: Tensor
    residual: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    gate: Tensor | None
    y: Tensor
    summed: Tensor | None
    mean: Tensor | None
    rstd: Tensor


@triton.jit
def load_sum(t, i: tl.constexpr, rows, M, N, stride_x, stride_residual, FORM: tl.constexpr):
    # s = x + residual, as rounded in memory
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    s = load_piece(t.x, i, rows, stride_x, M, N, dtype, FORM)
    if t.residual is not None:
        s = s + load_piece(t.residual, i, rows, stride_residual, M, N, dtype, FORM)
        s = rounded(s, t.summed.dtype.element_ty).to(dtype)
        store_piece(t.summed, s, i, rows, N, M, N, FORM)
    return s


@triton.jit(do_not_specialize=["M", "B"])
def rows_forward_kernel(
    t, M, N, B, stride_x, stride_residual, stride_gate, EPS: tl.float64, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    PIECES: tl.constexpr = FORM.PIECES
    BLOCK_M: tl.constexpr = FORM.BLOCK_M
    N = length(N, FORM)
    block = tl.program_id(0)
    first = 0
    weight = t.weight
    bias = t.bias
    if B is not None:
        which, each = sample(B)
        block -= which * each
        first = which.to(tl.int64) * (M // B)
        M = first + M // B
        weight = shifted(weight, which.to(tl.int64) * N)
        bias = shifted(bias, which.to(tl.int64) * N)
    rows = (block.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None] + first
    x = ()
    for i in tl.static_range(PIECES):
        x = x + (load_sum(t, i, rows, M, N, stride_x, stride_residual, FORM),)
    if t.mean is not None:
        # x - mean, in two steps, for rounding leaves the first mean up to ulp(mean) / 2 off: rest
        mean = tl.sum(added(x, FORM), axis=1)[:, None] / N
        centred = ()
        for i in tl.static_range(PIECES):
            centred = centred + (minus(x[i], mean, i, N, FORM),)
        rest, squares = both_sums(added(centred, FORM), products(centred, centred, FORM))
        rest, squares = rest[:, None] / N, squares[:, None] / N
        # of the squares about the first mean, what those about the second one lack is within their rounding
        var = tl.maximum(squares - rest * rest, 0.0, propagate_nan=tl.PropagateNan.ALL)
        x = centred
        tl.store(t.mean + rows, mean + rest, mask=rows < M)
    else:
        var = tl.sum(products(x, x, FORM), axis=1)[:, None] / N
    rstd = tl.rsqrt(var + number(EPS, var.dtype))
    tl.store(t.rstd + rows, rstd, mask=rows < M)
    for i in tl.static_range(PIECES):
        if t.mean is None:
            xhat = x[i] * rstd
        elif t.residual is None:  # beside which one operation in place of two spills
            xhat = x[i] * rstd - rest * rstd
        else:
            xhat = (x[i] - rest) * rstd
        w = load_parameter(weight, i, N, OFFSET, xhat.dtype, FORM)
        b = load_parameter(bias, i, N, None, xhat.dtype, FORM)
        gate = load_gate(t.gate, i, rows, stride_gate, M, N, FORM)
        store_piece(t.y, completed(affine(xhat, w, b), gate, SLOPE, ACT), i, rows, N, M, N, FORM)


def forward(a, bias: Tensor | None, mean: Tensor | None) -> None:
    """Fill y, summed, mean and rstd. Rows that fit a program are read once, longer ones again from L2."""
    M, N = a.y.shape
    strides = runs(a.x), runs(a.residual), runs(a.gate)
    align = alignment(a.x, N, *distances(*strides))
    t = Forward(a.x, a.residual, a.weight, bias, a.gate, a.y, a.summed, mean, a.rstd)
    B = samples(a.weight, bias)
    given = t, M, N, B, *strides
    constants = {"EPS": a.eps, "OFFSET": a.weight_offset, "SLOPE": a.slope, "ACT": a.activation}
    resident = forward_form(N, a.x.element_size(), align, a.weight_offset != 0, clusters.blocks(a.x))
    if resident:
        each = B or 1
        blocks = each * cdiv(M // each, resident["FORM"].BLOCK_M)
        rows_forward_kernel[(blocks,)](*given, **constants, **resident)
    else:
        segments = segment_form(N, a.x.element_size(), align, a.weight_offset != 0, a.gate is not None, backward=False)
        long_forward(t, a, B, Strides(*strides), segments)
