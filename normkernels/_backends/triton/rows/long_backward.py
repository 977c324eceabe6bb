"""Long rows, backward: the sums of g xhat and of g of each row, then dx and the parameter gradients down the columns.

A row's sums are those of its parts, added in their order: of many rows a program walks one, of few it takes a part, and
the second kernel adds. A part is summed by the same code in both, so a row's bits are the same.
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
from normkernels._backends.triton.rows.sizes import part, segment_form, shares, strip_form
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
def rows_long_sums_kernel(
    t, SUMS, M, N, B, strides, OFFSET: tl.float64, SLOPE: tl.float64,  # sums: (2, programs of a row, M), g xhat and g
    PART: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    STAGES: tl.constexpr = FORM.STAGES
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    N = N // FORM.ALIGN * FORM.ALIGN
    each = tl.num_programs(0) // M
    which_part = tl.program_id(0) % each
    begin = which_part * PART
    end = N if each == 1 else tl.minimum(begin + PART, N)
    row = tl.program_id(0).to(tl.int64) // each + tl.arange(0, 1)
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
    total_gx = tl.zeros([1], dtype)
    total_g = tl.zeros([1], dtype)
    if FORM.AHEAD:
        ahead = load_pair(t.x + begin, t.dy + begin, 0, row, strides, M, end - begin, FORM)
    for low in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        w = load_parameter(shifted(weight, low), 0, N - low, OFFSET, dtype, FORM)
        b = load_parameter(shifted(bias, low), 0, N - low, None, dtype, FORM)
        if FORM.AHEAD:
            pair = ahead
            above = low + BLOCK_N
            ahead = load_pair(t.x + above, t.dy + above, 0, row, strides, M, end - above, FORM)
        else:
            pair = load_pair(t.x + low, t.dy + low, 0, row, strides, M, N - low, FORM)
        gate = load_gate(shifted(t.gate, low), 0, row, strides.gate, M, N - low, FORM)
        xhat, du = grads(pair, gate, w, b, mean, rstd, SLOPE, ACT, t.mean is not None)
        g = affine(du, w, None)
        sum_gx += g * xhat
        sum_g += g
        if (low + BLOCK_N) % PART == 0 or low + BLOCK_N >= end:
            if t.mean is None:
                total_gx += tl.sum(sum_gx, axis=1)
            else:
                part_gx, part_g = both_sums(sum_gx, sum_g)
                total_gx += part_gx
                total_g += part_g
            sum_gx = tl.zeros([1, BLOCK_N], dtype)
            sum_g = tl.zeros([1, BLOCK_N], dtype)
    at = SUMS + which_part.to(tl.int64) * M + row
    tl.store(at, total_gx[:, None])
    if t.mean is not None:
        tl.store(at + tl.num_programs(0), total_g[:, None])


@triton.jit
def load_strip(t, low, block, first, strides, end, N, FORM: tl.constexpr):
    # x and dy of some rows
    BLOCK_M: tl.constexpr = FORM.BLOCK_M
    rows = (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None] + first
    return load_pair(t.x + low, t.dy + low, 0, rows, strides, end, N - low, FORM)


@triton.jit
def mean_of_row(SUMS, rows, end, M, N, each, FEW: tl.constexpr):
    # of one sum a row, or of those of its parts, in their order
    if FEW:
        total = tl.zeros(rows.shape, SUMS.dtype.element_ty)
        for low in range(0, each, 4):
            for i in tl.static_range(4):
                at = SUMS + (low + i) * M.to(tl.int64) + rows
                total += tl.load(at, mask=(rows < end) & (low + i < each), other=0.0)
    else:
        total = tl.load(SUMS + rows, mask=rows < end, other=0.0)
    return total[:, None] / N


@triton.jit(do_not_specialize=["M", "B", "each"])
def rows_long_backward_kernel(
    t, SUMS, each, M, N, B, strides, OFFSET: tl.float64, SLOPE: tl.float64,  # each: programs of a row above
    FEW: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
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
    DW = t.partial_w
    DB = t.partial_b
    if B is not None:
        which, strips = sample(B)
        strip -= which * strips
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
        mean_gx = mean_of_row(SUMS, rows, end, M, N, each, FEW)
        mean_g = rstd
        if t.mean is not None:
            mean_g = mean_of_row(SUMS + M.to(tl.int64) * each, rows, end, M, N, each, FEW)
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
    few = shares(a.dx) >= 8  # of more rows the strips alone fill a GPU
    chosen = N, a.x.element_size(), align, shift
    in_runs = any(r.rows is not None for r in strides)  # their places take registers, as a gate does
    segments = segment_form(*chosen, a.gate is not None or in_runs, backward=True)
    strip = strip_form(*chosen, a.gate is not None, cdiv(M, B or 1) if few else None)
    columns = part(N)
    each = cdiv(N, columns) if few else 1
    sums = accumulator(a.rstd, 2, each, M)
    given = M, N, B, strides
    rows_long_sums_kernel[(M * each,)](
        t._replace(dx=None, dgate=None, dsummed=None), sums, *given, **constants, PART=columns, **segments
    )
    grid = ((B or 1) * cdiv(N, strip["FORM"].BLOCK_N),)
    t = t._replace(partial_w=a.dweight, partial_b=dbias)  # of all rows: no sums of some
    rows_long_backward_kernel[grid](t, sums, each, *given, **constants, FEW=few, **strip)
