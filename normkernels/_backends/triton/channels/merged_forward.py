"""Channels, forward, in two launches: where partial results are few, every program that applies merges its own.

A launch and its wait for the one before cost more than some KB that each program reads from L2.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import number
from normkernels._backends.triton.channels import forward as apart
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.forward import channels_moments_kernel
from normkernels._backends.triton.channels.tensors import act, filled
from normkernels._backends.triton.channels.tiles import (
    aligned,
    broad,
    completed,
    load,
    load_tile,
    preactivation,
    slope_of,
    store_tile,
)
from normkernels._backends.triton.channels.walks import step, walk_back

RECORDS = 1024, 2048  # the most partial results, padded, that a program merges; in float64 half of them
STEPS = 8  # tiles that a program of the moments walks at most to leave so few of them


class Few(NamedTuple):
    """The constants of a merge: BLOCK_R partial results, padded, of each of BLOCK_G statistics."""

    BLOCK_R: int
    BLOCK_G: int


@triton.jit
def merged(PARTIAL, batch, first, B, G, each, rows, total, MERGE: tl.constexpr):
    # mean and variance of the statistics from `first` on, of each of which a row has so many partial results; partial:
    # as channels_moments_kernel leaves it
    dtype: tl.constexpr = PARTIAL.dtype.element_ty
    groups, record = (first + tl.arange(0, MERGE.BLOCK_G))[:, None], tl.arange(0, MERGE.BLOCK_R)[None, :]
    row = record // each
    mask = (row < rows) & (groups < G)
    at = ((batch * rows + row) * G + groups) * each + record % each
    table = B.to(tl.int64) * rows * G * each
    means = load(PARTIAL, at, mask, dtype)
    rest = load(PARTIAL + table, at, mask, dtype)
    squares = load(PARTIAL + table * 2, at, mask, dtype)
    count = load(PARTIAL + table * 3, at, mask, dtype)
    mean = tl.sum(means * count, axis=1) / total
    # Chan: the sums of squares, and the means' squared distances from the mean of all
    distance = means - mean[:, None] + rest
    rest, squares = both_sums(distance * count, distance * distance * count + squares)
    rest, squares = rest / total, squares / total
    var = squares - rest * rest
    return mean + rest, tl.where(var < 0, 0.0, var)


@triton.jit
def of_channels(mean, var, channels, low, each, MERGE: tl.constexpr):
    # of each channel what its statistic has
    same = (channels // each - low // each)[:, None] == tl.arange(0, MERGE.BLOCK_G)[None, :]
    return both_sums(tl.where(same, mean[None, :], 0.0), tl.where(same, var[None, :], 0.0))


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "steps", "rows"])
def channels_merge_apply_kernel(
    t, PARTIAL, N, C, S, G, images, steps, rows, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr,
    MERGE: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    parts = tl.cdiv(tl.cdiv(S, FORM.BLOCK_B), steps)
    low, image, first, tiles, channels, stat = walk_back(N, C, S, G, images, parts, steps, FORM)
    if FORM.LONE:  # the tile comes while partial results are merged
        tile = step(0, low, image, first, N, C, S, FORM)
        x = load_tile(t.x, tile, dtype)
        skip = load_tile(t.skip, tile, dtype)
        gate = load_tile(t.gate, tile, dtype)
    w = load(t.weight, channels, channels < C, dtype)
    b = broad(load(t.bias, channels, channels < C, dtype), 2)
    each = C // G if FORM.LAST else 1  # planes of a statistic were summed up as one
    total = (images * (C // G)).to(dtype) * S.to(dtype)
    mean, var = merged(PARTIAL, image // images, low // (C // G), N // images, G, each, rows, total, MERGE)
    # in the merge's own layout they would have a tile that is there already follow them, or all of x a lone value
    if FORM.POOLED or FORM.LONE or MERGE.BLOCK_G == 1:
        mean, var = of_channels(mean, var, channels, low, C // G, MERGE)
    # one program keeps a statistic: that of its first channel, at the first tile
    keeps = (channels < C) & (channels % (C // G) == 0) & (first == 0)
    tl.store(t.mean + stat, mean, mask=keeps)
    tl.store(t.var + stat, var, mask=keeps)
    slope = slope_of(tl.rsqrt(var + number(EPS, dtype)), w)[:, None]
    mean = mean[:, None]
    if FORM.LONE:
        store_tile(t.y, completed(preactivation(x - mean, slope, b, skip), gate, SLOPE, ACT), tile)
    else:
        for i in tl.range(0, tiles, num_stages=STAGES):
            tile = step(i, low, image, first, N, C, S, FORM)
            x = load_tile(t.x, tile, dtype) - mean
            u = preactivation(x, slope, b, load_tile(t.skip, tile, dtype))
            store_tile(t.y, completed(u, load_tile(t.gate, tile, dtype), SLOPE, ACT), tile)


def shared_out(z: sizes.Sizes, most: int | None = None) -> sizes.Split:
    """Tiles half as wide as others where channels lie last, so that a program merges half as much."""
    s = sizes.split(z, sizes.FORWARD_TILE, most)
    if z.last and s.BLOCK_A * z.itemsize > sizes.RUNS[0]:
        A, B = s.BLOCK_A // 2, min(sizes.power(z.S), s.BLOCK_B * 2)
        s = s._replace(BLOCK_A=A, BLOCK_B=B, steps=min(s.steps, along(z, B)))
    return s._replace(num_warps=min(s.num_warps, max(4, s.BLOCK_A * s.BLOCK_B // 512)))


def along(z: sizes.Sizes, BLOCK_B: int) -> int:
    """Tiles of a channel, of an image or of all that are pooled."""
    return cdiv(z.S, BLOCK_B) * (z.N if z.images else 1)


def met(channels: int, each: int) -> int:
    """How many statistics, of so many channels each, a tile of so many channels meets at most, as a power of two."""
    if channels % each == 0 or each % channels == 0:
        return max(1, channels // each)
    return sizes.power(cdiv(channels - 1, each) + 1)


def few(z: sizes.Sizes) -> tuple[sizes.Split, Few] | None:
    """How x is shared out for its moments, and how they are merged; None where they are too many for this.

    Of an image from C, S, G and the dtype alone, so that its bits do not depend on the batch.
    """
    flat = z.flat
    s, each, tile = shared_out(flat), flat.C // flat.G, shared_out(z).BLOCK_A
    tiles, groups = along(flat, s.BLOCK_B), met(tile, z.C // z.G)
    for records in RECORDS:  # of channels, or else of the groups that a tile meets
        rows = records * 4 // max(z.itemsize, 4) // groups // each
        steps = max(s.steps, cdiv(tiles, rows)) if rows else tiles
        if rows and steps <= max(s.steps, STEPS):
            s = s._replace(steps=steps)
            return s, Few(sizes.power(cdiv(tiles, steps) * each), groups)
    return None


def applying(z: sizes.Sizes, merge: Few) -> sizes.Split:
    """How x is shared out to be applied to: the more a program merges, the fewer there are."""
    s = shared_out(z, sizes.STEPS)
    tiles, records = along(z, s.BLOCK_B), merge.BLOCK_R * merge.BLOCK_G
    programs = cdiv(z.C, s.BLOCK_A) * tiles * (1 if z.images else z.N)
    steps = max(s.steps, cdiv(programs, sizes.PARTS * 8 // s.num_warps // (1 if records < RECORDS[1] else 2)))
    return s._replace(steps=min(tiles, steps))


def forward(a) -> None:
    """Fill y, mean and var."""
    z = sizes.of(a.x, a.mean, a.channels_last)
    found = None if sizes.resident(z, sizes.FORWARD_LIMIT) else few(z)
    if found is None:
        apart.forward(a)
        return
    (s, merge), flat = found, z.flat
    _, rows = sizes.parts(flat, s)
    partial = accumulator(a.mean, 4, rows, flat.C)
    programs, given, constants = sizes.walking(flat, s, a.x)
    channels_moments_kernel[(programs,)](a.x, partial, *given, **constants)
    t = filled(a)
    programs, (*shape, _, steps), constants = sizes.walking(z, applying(z, merge), a.x, a.skip)
    channels_merge_apply_kernel[(programs,)](
        t, partial, *shape, steps, rows // z.B, EPS=a.eps, SLOPE=a.slope, ACT=act(a), MERGE=merge, **constants
    )
