"""Rows, backward: dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsummed, g = du (w + offset).

du = dy act'(u), or dy act(gate) and dgate = dy u act'(gate). Without a mean (RMS norm) there is no mean(g).
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base import clusters
from normkernels._backends.triton.base.launch import accumulator, alignment
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.rows.long_backward import long_backward
from normkernels._backends.triton.rows.runs import Runs, distances, runs
from normkernels._backends.triton.rows.sizes import backward_form
from normkernels._backends.triton.rows.tiles import (
    added,
    columns,
    length,
    load_parameters,
    load_piece,
    load_stat,
    piece,
    products,
    sample,
    samples,
    shifted,
    store_gate_grad,
    store_piece,
)
from normkernels._backends.triton.rows.turns import load_gates, load_pairs, means, of_tile, row_grads, tile_rows


class Backward(NamedTuple):
    """dy, dsummed, x, gate: M rows of N, in runs; dx, dgate: (M, N); weight, bias: (N,) or (B, N); mean, rstd: (M,).

    partials: (programs of a sample, B, N)
    """

    dy: Tensor
    dsummed: Tensor | None
    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    gate: Tensor | None
    mean: Tensor | None
    rstd: Tensor
    dx: Tensor | None
    dgate: Tensor | None
    partial_w: Tensor | None
    partial_b: Tensor | None


class Strides(NamedTuple):
    """Where the rows of each lie."""

    dy: Runs
    dsummed: Runs
    x: Runs
    gate: Runs


@triton.jit(do_not_specialize=["M", "B"])
def rows_backward_kernel(
    t, M, N, B, strides, OFFSET: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    PIECES: tl.constexpr = FORM.PIECES
    TILES: tl.constexpr = FORM.TILES
    BLOCK_M: tl.constexpr = FORM.BLOCK_M
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    STAGES: tl.constexpr = FORM.STAGES
    SUMS: tl.constexpr = 1 if t.mean is None else 2
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    N = length(N, FORM)
    dw = ()
    db = ()
    first = 0
    weight = t.weight
    bias = t.bias if ACT != "identity" or t.dgate is not None else None
    if B is not None:
        which, each = sample(B)
        first = which.to(tl.int64) * (M // B)
        M = first + M // B
        weight = shifted(weight, which.to(tl.int64) * N)
        bias = shifted(bias, which.to(tl.int64) * N)
    w = load_parameters(weight, N, OFFSET, dtype, FORM)
    b = load_parameters(bias, N, None, dtype, FORM)
    for _ in tl.static_range(PIECES):
        dw = dw + (tl.zeros([BLOCK_M, BLOCK_N], dtype),)
        db = db + (tl.zeros([BLOCK_M, BLOCK_N], dtype),)
    blocks = tl.cdiv(M - first, BLOCK_M * TILES)
    start = tl.program_id(0)
    line = start
    if B is not None:
        start -= which * each
        line = start * B + which
    if FORM.AHEAD:
        ahead = load_pairs(t, start, first, strides, M, N, FORM)
    step = tl.num_programs(0) if B is None else each
    for block in tl.range(start, blocks, step, num_stages=STAGES):
        if FORM.AHEAD:
            # narrow accesses go to registers alone, so a turn's tiles wait for it there
            given = ahead
            ahead = load_pairs(t, tl.minimum(block + step, blocks - 1), first, strides, M, N, FORM)
        else:
            given = load_pairs(t, block, first, strides, M, N, FORM)
        xs = ()
        gs = ()
        rstds = ()
        totals = ()
        for r in tl.static_range(TILES):
            rows = tile_rows(block, r, first, FORM)
            rstd = load_stat(t.rstd, rows, M)
            mean = rstd if t.mean is None else load_stat(t.mean, rows, M)
            rows = rows[:, None]
            gates = load_gates(t, rows, strides, M, N, FORM)
            pairs = of_tile(given, r, FORM)
            xhat, du, g = row_grads(pairs, gates, w, b, mean, rstd, SLOPE, ACT, FORM, t.mean is not None)
            if t.dgate is not None:
                for i in tl.static_range(PIECES):
                    w_here = piece(w, i)
                    b_here = piece(b, i)
                    u = affine(xhat[i], w_here, b_here)
                    store_gate_grad(t.dgate, pairs[i][1], gates[i], u, i, rows, N, M, N, SLOPE, ACT, FORM)
            totals = totals + (products(g, xhat, FORM),)
            if t.mean is not None:
                totals = totals + (added(g, FORM),)
            new_w = ()
            new_b = ()
            for i in tl.static_range(PIECES):
                new_w = new_w + (dw[i] + du[i] * xhat[i],)
                new_b = new_b + (db[i] + du[i],)
            dw = new_w
            db = new_b
            xs = xs + xhat
            gs = gs + g
            rstds = rstds + (rstd,)
        mean_of = means(totals, N, TILES * SUMS)  # g xhat and, of centred rows, g
        for r in tl.static_range(TILES):
            rows = tile_rows(block, r, first, FORM)[:, None]
            for i in tl.static_range(PIECES):
                dx = gs[r * PIECES + i] - xs[r * PIECES + i] * mean_of[r * SUMS]
                if t.mean is not None:
                    dx = dx - mean_of[r * SUMS + 1]
                dx = dx * rstds[r]
                if t.dsummed is not None:
                    dx = dx + load_piece(t.dsummed, i, rows, strides.dsummed, M, N, dtype, FORM)
                store_piece(t.dx, dx, i, rows, N, M, N, FORM)
    for i in tl.static_range(PIECES):
        store_partial(t.partial_w, dw[i], i, line, N, FORM)
        store_partial(t.partial_b, db[i], i, line, N, FORM)


@triton.jit
def store_partial(PARTIAL, total, i: tl.constexpr, line, N, FORM: tl.constexpr):
    if PARTIAL is not None:
        cols = columns(i, FORM)
        tl.store(PARTIAL + line.to(tl.int64) * N + cols, tl.sum(total, axis=0)[None, :], mask=cols < N)


def backward(a, bias: Tensor | None, mean: Tensor | None, dbias: Tensor | None) -> None:
    """Fill dx, dweight, dbias and dgate. Rows that fit a program are read once, longer ones again from L2."""
    M, N = a.dx.shape
    strides = Strides(runs(a.dy), runs(a.dsummed), runs(a.x), runs(a.gate))
    align = alignment(a.x, N, *distances(*strides))
    loads = 2 + (a.dsummed is not None) + (a.gate is not None)
    B, centered = samples(a.weight, bias), mean is not None
    finish = a.activation if a.gate is None else "gate"
    form = N, a.x.element_size(), align, a.weight_offset != 0, loads, finish, centered, B is not None
    resident = backward_form(*form, clusters.blocks(a.x))
    given = Backward(a.dy, a.dsummed, a.x, a.weight, bias, a.gate, mean, a.rstd, a.dx, a.dgate, None, None)
    if resident is None:
        long_backward(given, a, dbias, strides, align)
        return
    each = B or 1
    turn = resident["FORM"].BLOCK_M * resident["FORM"].TILES
    num_ctas = resident.get("num_ctas", 1)
    P = max(1, clusters.programs(a.x, each * cdiv(M // each, turn), resident["num_warps"], num_ctas) // each)
    partial_w = None if a.dweight is None else accumulator(a.rstd, P, each * N)
    partial_b = None if dbias is None else accumulator(a.rstd, P, each * N)
    t = given._replace(partial_w=partial_w, partial_b=partial_b)
    constants = {"OFFSET": a.weight_offset, "SLOPE": a.slope, "ACT": a.activation}
    rows_backward_kernel[(P * each,)](t, M, N, B, strides, **constants, **resident)
    finalise(partial_w, partial_b, a.dweight, dbias)
