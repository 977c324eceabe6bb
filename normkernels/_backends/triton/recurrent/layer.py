"""Recurrent, layer norm: a program has some rows, and their units in one tile or one tile after the other."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import alignment
from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2
from normkernels._backends.triton.recurrent.steps import THREADS, values_per_thread
from normkernels._backends.triton.recurrent.tiles import Form, load, store

PROGRAMS = 64  # of a backward step, each of which adds to lines of partial sums of its own


def form(like: Tensor, N: int, gates: int, most: int = 8) -> dict:
    """Constants and warps of a launch: some rows of a short tile, or one; ``most``: values of a thread.

    The RNN has registers for four times as many.
    """
    each = values_per_thread(like, N, most)
    longest = THREADS * each * (4 if gates == 1 else 1)
    BLOCK_N = max(16, min(next_power_of_2(N), longest))
    BLOCK_M = max(1, 256 // BLOCK_N)
    form = Form(1, alignment(like, N), BLOCK_N >= N, BLOCK_N, BLOCK_M, BLOCK_N)
    return {"FORM": form, "num_warps": min(THREADS // 32, max(1, BLOCK_M * BLOCK_N // (32 * each)))}


def workspace(stat: Tensor, batch: int, BLOCK_M: int, *parameters: Tensor | None) -> tuple[int, list[Tensor | None]]:
    """How many tiles of rows one program takes backward, from the batch alone, for a row to find its line again.

    And for each gradient a workspace of zeros: a line for each row of a tile of each program.
    """
    tiles = cdiv(batch, BLOCK_M)
    each = cdiv(tiles, PROGRAMS)
    lines = cdiv(tiles, each) * BLOCK_M
    made = [p if p is None else torch.zeros(lines, len(p), dtype=stat.dtype, device=stat.device) for p in parameters]
    return each, made


@triton.jit
def base(block, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    return (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64), tl.arange(0, BLOCK_N), M, N


@triton.jit
def at_groups(base, first, GROUP: tl.constexpr, GROUPS: tl.constexpr):
    rows, _, M, _ = base
    return (first + rows)[:, None] * GROUPS + GROUP, rows[:, None] < M


@triton.jit
def store_statistics(MEAN, RSTD, stats, base, first, G: tl.constexpr, PER: tl.constexpr):
    for gate in tl.static_range(0, G, PER):
        offsets, mask = at_groups(base, first, gate // PER, (G + PER - 1) // PER)
        tl.store(MEAN + offsets, stats[gate][0], mask=mask)
        tl.store(RSTD + offsets, stats[gate][1], mask=mask)


@triton.jit
def load_statistics(MEAN, RSTD, base, first, G: tl.constexpr, PER: tl.constexpr):
    found = ()
    for gate in tl.static_range(G):
        if gate % PER == 0:
            offsets, mask = at_groups(base, first, gate // PER, (G + PER - 1) // PER)
            mean = tl.load(MEAN + offsets, mask=mask, other=0.0)
            rstd = tl.load(RSTD + offsets, mask=mask, other=0.0)
        found += ((mean, rstd),)
    return found


@triton.jit
def add_to_lines(PARTIAL_W, PARTIAL_B, dq, xhats, tile, G: tl.constexpr):
    # the gradients of weight and bias, in lines of this program
    rows, cols, mask, N = tile
    lines = tl.program_id(0).to(tl.int64) * rows.shape[0] + tl.arange(0, rows.shape[0]), cols, mask, N
    of_w, of_b = (), ()
    if PARTIAL_W is not None:
        before = load(PARTIAL_W, lines, G, dq[0].dtype)
        for gate in tl.static_range(G):
            of_w += (before[gate] + dq[gate] * xhats[gate],)
        store(PARTIAL_W, of_w, lines, G)
    if PARTIAL_B is not None:
        before = load(PARTIAL_B, lines, G, dq[0].dtype)
        for gate in tl.static_range(G):
            of_b += (before[gate] + dq[gate],)
        store(PARTIAL_B, of_b, lines, G)
