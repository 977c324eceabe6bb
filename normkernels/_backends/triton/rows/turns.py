"""Rows, backward: what a turn of a program's loop takes, TILES tiles of rows, each in PIECES pieces.

What is known of every piece of every tile is one tuple, tile after tile. Two tiles a turn pay where the loop waits for
registers: one reduction is for both, and what the next turn needs has been under way for twice as long.
"""

import triton
import triton.language as tl

from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.rows.tiles import grads, load_gate, load_pair, piece


@triton.jit
def tile_rows(block, r: tl.constexpr, first, FORM: tl.constexpr):
    # of tile r of a turn
    BLOCK_M: tl.constexpr = FORM.BLOCK_M
    return ((block * FORM.TILES + r) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64) + first


@triton.jit
def load_pairs(t, block, first, strides, M, N, FORM: tl.constexpr):
    # x and dy of a turn
    TILES: tl.constexpr = FORM.TILES
    PIECES: tl.constexpr = FORM.PIECES
    found = ()
    for r in tl.static_range(TILES):
        rows = tile_rows(block, r, first, FORM)[:, None]
        for i in tl.static_range(PIECES):
            found = found + (load_pair(t.x, t.dy, i, rows, strides, M, N, FORM),)
    return found


@triton.jit
def load_gates(t, rows, strides, M, N, FORM: tl.constexpr):
    # of every piece of a tile, or None
    if t.gate is not None:
        PIECES: tl.constexpr = FORM.PIECES
        found = ()
        for i in tl.static_range(PIECES):
            gate = load_gate(t.gate, i, rows, strides.gate, M, N, FORM)
            found = found + (gate,)
        return found


@triton.jit
def of_tile(found, r: tl.constexpr, FORM: tl.constexpr):
    # of what is found of a turn
    PIECES: tl.constexpr = FORM.PIECES
    here = ()
    for i in tl.static_range(PIECES):
        here = here + (found[r * PIECES + i],)
    return here


@triton.jit
def row_grads(
    given, gates, w, b, mean, rstd, SLOPE, ACT: tl.constexpr, FORM: tl.constexpr, CENTER: tl.constexpr
):  # fmt: skip
    # xhat, du and g = du (w + offset) of every piece of a tile
    PIECES: tl.constexpr = FORM.PIECES
    xhats = ()
    dus = ()
    gs = ()
    for i in tl.static_range(PIECES):
        w_here = piece(w, i)
        b_here = piece(b, i)
        gate = piece(gates, i)
        xhat, du = grads(given[i], gate, w_here, b_here, mean, rstd, SLOPE, ACT, CENTER)
        xhats = xhats + (xhat,)
        dus = dus + (du,)
        gs = gs + (affine(du, w_here, None),)
    return xhats, dus, gs


@triton.jit
def means(totals, N, COUNT: tl.constexpr):
    # along the rows of one tile, two or four; one reduction of all costs the barriers of one
    if COUNT == 1:
        found = (tl.sum(totals[0], axis=1)[:, None] / N,)
    elif COUNT == 2:
        a, b = both_sums(totals[0], totals[1])
        found = (a[:, None] / N, b[:, None] / N)
    else:
        first, second = both_sums(tl.join(totals[0], totals[1]), tl.join(totals[2], totals[3]))
        a, b = tl.split(first)
        c, d = tl.split(second)
        found = (a[:, None] / N, b[:, None] / N, c[:, None] / N, d[:, None] / N)
    return found
