"""Recurrent, batch norm: a program has some units, and the rows of a step in one tile or one tile after the other."""

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import accumulator, alignment
from normkernels._backends.triton.base.numbers import next_power_of_2
from normkernels._backends.triton.recurrent.norm import means_of
from normkernels._backends.triton.recurrent.steps import THREADS, values_per_thread
from normkernels._backends.triton.recurrent.tiles import Form, times_parameter

UNITS = 16  # of a program: 32 bytes of each row at the least


def form(like: Tensor, batch: int, N: int, most: int = 8, walking: int | None = None) -> dict:
    """Constants and warps of a launch, from the batch alone, so that shorter steps take the same kernel.

    ``most``: values of a thread, ``walking``: where there are several tiles. A small batch has a tile of more units.
    """
    each = values_per_thread(like, N, most)
    if walking and batch > THREADS * each // UNITS:
        each = values_per_thread(like, N, walking)
    BLOCK_M = max(2, min(next_power_of_2(batch), THREADS * each // UNITS))
    BLOCK_N = max(UNITS, 256 // BLOCK_M)
    form = Form(0, alignment(like, N), BLOCK_M >= batch, BLOCK_M, BLOCK_M, BLOCK_N)
    return {"FORM": form, "num_warps": max(1, BLOCK_M * BLOCK_N // (32 * each))}


def workspace(stat: Tensor, *parameters: Tensor | None) -> list[Tensor | None]:
    """For each gradient a workspace with a line for each step."""
    return [None if p is None else accumulator(stat, len(stat), len(p)) for p in parameters]


@triton.jit
def base(block, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    return tl.arange(0, BLOCK_M).to(tl.int64), block * BLOCK_N + tl.arange(0, BLOCK_N), M, N


@triton.jit
def load_line(P, T, base, G: tl.constexpr):
    # for each gate (1, BLOCK_N) of row T
    _, cols, _, N = base
    found = ()
    for gate in tl.static_range(G):
        offsets = tl.cast(T, tl.int64) * (G * N) + (gate * N + cols[None, :])
        found += (tl.load(P + offsets, mask=cols[None, :] < N, other=0.0),)
    return found


@triton.jit
def store_line(P, T, values, base, G: tl.constexpr):
    if P is not None:
        _, cols, _, N = base
        for gate in tl.static_range(G):
            offsets = tl.cast(T, tl.int64) * (G * N) + (gate * N + cols[None, :])
            tl.store(P + offsets, values[gate], mask=cols[None, :] < N)


@triton.jit
def store_sums(PARTIAL_W, PARTIAL_B, T, sums, base, G: tl.constexpr):
    # the gradients of weight and bias, in the line of this step
    of_b, of_w = (), ()
    for gate in tl.static_range(G):
        of_b += (tl.sum(sums[0][gate], axis=0, keep_dims=True),)
        of_w += (tl.sum(sums[1][gate], axis=0, keep_dims=True),)
    store_line(PARTIAL_W, T, of_w, base, G)
    store_line(PARTIAL_B, T, of_b, base, G)


@triton.jit
def means_from(sums, W, base, G: tl.constexpr, TRAINING: tl.constexpr):
    # of g = dq weight and of g xhat; None where mean and variance are constants
    found = None
    if TRAINING:
        of_g = times_parameter(means_of(sums[0], base, G, 1, 0), W, base, G)
        found = of_g, times_parameter(means_of(sums[1], base, G, 1, 0), W, base, G)
    return found
