"""Long rows, forward: a program reads a row for its moments, and again, from L2, for y."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.values import affine, number, rounded
from normkernels._backends.triton.rows.runs import Runs
from normkernels._backends.triton.rows.tiles import (
    columns,
    completed,
    load_gate,
    load_parameter,
    load_piece,
    sample,
    shifted,
    store_piece,
)


@triton.jit
def load_segment(t, low, row, M, N, stride_x, stride_residual, FORM: tl.constexpr):
    # s = x + residual of the columns from `low` on, as rounded in memory
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    s = load_piece(t.x + low, 0, row, stride_x, M, N - low, dtype, FORM)
    if t.residual is not None:
        s = s + load_piece(t.residual + low, 0, row, stride_residual, M, N - low, dtype, FORM)
        s = rounded(s, t.summed.dtype.element_ty).to(dtype)
        store_piece(t.summed + low, s, 0, row, N, M, N - low, FORM)
    return s


@triton.jit(do_not_specialize=["M", "B"])
def rows_long_forward_kernel(
    t, M, N, B, stride_x, stride_residual, stride_gate, EPS: tl.float64, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    STAGES: tl.constexpr = FORM.STAGES
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    N = N // FORM.ALIGN * FORM.ALIGN
    row = (tl.program_id(0).to(tl.int64) + tl.arange(0, 1))[:, None]
    squares = tl.zeros([1, BLOCK_N], dtype)
    if t.mean is None:
        for low in tl.range(0, N, BLOCK_N, num_stages=STAGES):
            x = load_segment(t, low, row, M, N, stride_x, stride_residual, FORM)
            squares += x * x
        rest = tl.zeros([1, 1], dtype)
        mean = rest
    else:
        # Welford in every lane, about the lane's first value, so that nothing is lost where x is far from 0
        first = load_segment(t, 0, row, M, N, stride_x, stride_residual, FORM)
        move = tl.zeros([1, BLOCK_N], dtype)
        seen = tl.full([1, 1], 1.0, dtype)
        for low in tl.range(BLOCK_N, N, BLOCK_N, num_stages=STAGES):
            away = load_segment(t, low, row, M, N, stride_x, stride_residual, FORM) - first - move
            if not FORM.EXACT:
                away = tl.where(columns(0, FORM) < N - low, away, 0.0)
            seen += 1.0
            move += away * (1 / seen)
            squares += away * away * (1 - 1 / seen)
        # Chan: the lanes' sums of squares, and their means' squared distances from the mean of all
        each = tl.cdiv(N - columns(0, FORM), BLOCK_N).to(dtype)
        mean = tl.sum(first * each, axis=1)[:, None] / N
        distance = first - mean + move
        rest = tl.sum(distance * each, axis=1)[:, None] / N
        squares += (distance - rest) * (distance - rest) * each
        tl.store(t.mean + row, mean + rest)
    rstd = tl.rsqrt(tl.sum(squares, axis=1)[:, None] / N + number(EPS, dtype))
    tl.store(t.rstd + row, rstd)
    weight = t.weight
    bias = t.bias
    if B is not None:
        which, _ = sample(B)
        weight = shifted(weight, which.to(tl.int64) * N)
        bias = shifted(bias, which.to(tl.int64) * N)
    # the sum that this program wrote
    S = t.x if t.residual is None else t.summed
    stride = stride_x if t.residual is None else Runs(N, None, None, None, None)
    for low in tl.range(0, N, BLOCK_N, num_stages=STAGES):
        x = load_piece(S + low, 0, row, stride, M, N - low, dtype, FORM)
        if t.mean is not None:
            x = x - mean - rest
        w = load_parameter(shifted(weight, low), 0, N - low, OFFSET, dtype, FORM)
        b = load_parameter(shifted(bias, low), 0, N - low, None, dtype, FORM)
        gate = load_gate(shifted(t.gate, low), 0, row, stride_gate, M, N - low, FORM)
        y = completed(affine(x * rstd, w, b), gate, SLOPE, ACT)
        store_piece(t.y + low, y, 0, row, N, M, N - low, FORM)
