"""Channels, backward of a batch, in two launches at most: every program that fills dx merges the sums of its channels.

A statistic is a channel, so its sums are the gradients of its parameters too, and no kernel need add up more.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels import backward as apart
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.backward import channels_backward_kernel, channels_sums_kernel
from normkernels._backends.triton.channels.tensors import act, tensors
from normkernels._backends.triton.channels.tiles import aligned, broad, grads, load, statistics, store, store_tile
from normkernels._backends.triton.channels.walks import step, walk_back

HELD = {2: 16384, 4: 16384, 8: 4096}  # the most values that a program holds, padded; half of them with an activation
PROGRAMS = 256  # of either sweep, two on each multiprocessor: the more, the more each has to merge
RUNS = 64, 32  # adjacent bytes of a tile where channels lie last: the fewer, the less a program merges
RECORDS = 1024, 2048  # the most partial sums of a tile's channels: where it can be narrower, and where it cannot


class Sums(NamedTuple):
    """Partial sums (parts, C) of du xhat and of du, and where those of all parts go."""

    partial_w: Tensor
    partial_b: Tensor
    dweight: Tensor | None
    dbias: Tensor | None


@triton.jit
def totals(sums, channels, C, parts, PARTS: tl.constexpr):
    # of each channel the sums of du xhat and of du
    dtype: tl.constexpr = sums.partial_w.dtype.element_ty
    part = tl.arange(0, PARTS)[None, :]
    at, mask = part * C + channels[:, None], (part < parts) & (channels < C)[:, None]
    return both_sums(load(sums.partial_w, at, mask, dtype), load(sums.partial_b, at, mask, dtype))


@triton.jit(do_not_specialize=["N", "C", "S", "steps"])
def channels_merge_dx_kernel(
    t, sums, N, C, S, steps, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, PARTS: tl.constexpr,
    FORM: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    parts = tl.cdiv(N * tl.cdiv(S, FORM.BLOCK_B), steps)
    low, image, first, tiles, channels, _ = walk_back(N, C, S, C, N, parts, steps, FORM)
    there = channels < C
    mean, rstd = statistics(t.mean, t.var, t.scale, channels, there, EPS)
    mean = mean[:, None]
    rstd = rstd[:, None]
    w = broad(load(t.weight, channels, there, dtype), 2)
    b = broad(load(t.bias if ACT != "identity" or t.gate is not None else None, channels, there, dtype), 2)
    if FORM.LONE:  # the tile comes while partial sums are merged
        tile = step(0, low, image, first, N, C, S, FORM)
        xhat, du, beside = grads(t, w, b, mean, rstd, tile, SLOPE, ACT)
        store_tile(t.dskip, beside, tile)
    dw, db = totals(sums, channels, C, parts, PARTS)
    # one program keeps a channel's: that of its first tile
    keeps = there & (first == 0)
    store(sums.dweight, dw, channels, keeps)
    store(sums.dbias, db, channels, keeps)
    count = N.to(dtype) * S.to(dtype)
    mean_gx = (dw / count)[:, None]
    mean_g = (db / count)[:, None]
    if FORM.LONE:
        store_tile(t.dx, affine(du - mean_g - xhat * mean_gx, w, None) * rstd, tile)
    else:
        for i in tl.range(0, tiles, num_stages=STAGES):
            tile = step(i, low, image, first, N, C, S, FORM)
            xhat, du, beside = grads(t, w, b, mean, rstd, tile, SLOPE, ACT)
            store_tile(t.dskip, beside, tile)
            store_tile(t.dx, affine(du - mean_g - xhat * mean_gx, w, None) * rstd, tile)


def shared_out(z: sizes.Sizes) -> sizes.Split:
    """How a batch is shared out for both sweeps: few programs, for each of them merges what all have left."""
    s = sizes.split(z, sizes.FORWARD_TILE)
    for run in RUNS if z.last else ():
        A = min(s.BLOCK_A, max(1, run // z.itemsize))
        B = min(sizes.power(z.S), s.BLOCK_A * s.BLOCK_B // A)
        s = s._replace(BLOCK_A=A, BLOCK_B=B)
        if PROGRAMS // cdiv(z.C, A) * A <= RECORDS[0]:
            break
    parts = max(1, min(PROGRAMS // cdiv(z.C, s.BLOCK_A), RECORDS[1] // s.BLOCK_A))
    return s._replace(steps=cdiv(cdiv(z.S, s.BLOCK_B) * z.N, parts))


def held(z: sizes.Sizes, a) -> sizes.Resident | None:
    """Whole channels in registers; None if they are too large."""
    most = HELD[z.itemsize] * (2 if z.last or z.images else 1) * (1 if z.whole else 2)
    return sizes.resident(z, {z.itemsize: most}, 1 if a.activation == "identity" else 2)


def backward(a, training: bool) -> None:
    """Fill dx, dskip, dweight and dbias of a batch, of which each channel has one statistic."""
    if not training:
        apart.backward(a, training)
        return
    z, t = sizes.of(a.x, a.mean, a.channels_last), tensors(a)
    end = {"EPS": a.eps, "SLOPE": a.slope, "ACT": act(a)}
    if tile := held(z, a):
        t = t._replace(partial_w=a.dweight, partial_b=a.dbias, dx=a.dx, dskip=a.dskip)
        programs, given, constants = sizes.holding(a.x, z, tile)
        channels_backward_kernel[(programs,)](t, *given, **end, **constants)
        return
    s = shared_out(z)
    parts = sizes.parts(z, s)[1]
    partial = accumulator(a.mean, parts, z.C), accumulator(a.mean, parts, z.C)
    programs, given, constants = sizes.walking(z, s, t.x, t.dy, t.skip, t.gate)
    summed = t._replace(partial_w=partial[0], partial_b=partial[1])
    channels_sums_kernel[(programs,)](summed, *given, **end, **constants)
    t = t._replace(dx=a.dx, dskip=a.dskip)
    channels_merge_dx_kernel[(programs,)](
        t, Sums(*partial, a.dweight, a.dbias), z.N, z.C, z.S, s.steps, **end, PARTS=sizes.power(parts), **constants
    )
