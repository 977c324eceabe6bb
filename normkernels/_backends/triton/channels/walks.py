"""Channels: how the programs of a large input walk it, part by part and a tile at a time."""

import triton
import triton.language as tl

from normkernels._backends.triton.channels.tiles import Tile, offset


@triton.jit
def walk(program, N, C, S, parts, steps, FORM: tl.constexpr):
    # of the part that a program walks: first channel, row in the table of parts, image, first position, tiles;
    # where IMAGES are pooled, a part is a run of tiles of all of them, and its first tile stands for both. Of tiles the
    # first of every image comes first, the last one last, so that a lane of a part has a value until it has none
    blocks = tl.cdiv(C, FORM.BLOCK_A)
    low = program % blocks * FORM.BLOCK_A
    row = (program // blocks).to(tl.int64)
    if FORM.IMAGES:
        image, first = row * 0, program // blocks * steps
        left = N * tl.cdiv(S, FORM.BLOCK_B) - first
    else:
        image, first = row // parts, row % parts * steps * FORM.BLOCK_B
        left = tl.cdiv(S - first, FORM.BLOCK_B)
    tiles = tl.minimum(steps, left).to(tl.int32)
    if FORM.LONE:
        tiles = 1
    return low, row, image, first, tiles


@triton.jit
def step(i, low, image, first, N, C, S, FORM: tl.constexpr):
    # the tile i of a part
    if FORM.IMAGES:
        image = ((first + i) % N).to(tl.int64)
        first = ((first + i) // N).to(tl.int64) * FORM.BLOCK_B
    else:
        first += i * FORM.BLOCK_B
    inside, positions = tl.arange(0, FORM.BLOCK_A)[:, None], tl.arange(0, FORM.BLOCK_B)[None, :]
    mask = (low + inside < C) & (positions < S - first)
    start = image * C * S + offset(low.to(tl.int64), first, C, S, FORM.LAST)
    return Tile(start, offset(inside, positions, C, S, FORM.LAST), mask)


@triton.jit
def walked(first, tiles, N, S, FORM: tl.constexpr):
    # how many values of a channel a part has, and how many each lane (1, BLOCK_B)
    BLOCK_B: tl.constexpr = FORM.BLOCK_B
    positions = tl.arange(0, BLOCK_B)[None, :]
    if FORM.IMAGES:
        before = tl.cdiv(S, BLOCK_B) - 1
        tail, last = S - before * BLOCK_B, tl.minimum(tiles, tl.maximum(first + tiles - before * N, 0))
        count = tiles * BLOCK_B - last * (BLOCK_B - tail)
        each = tiles - tl.where(positions < tail, 0, last)
    else:
        count = tl.minimum(S - first, tiles * BLOCK_B).to(tl.int32)
        each = tl.maximum(tl.cdiv(count - positions, BLOCK_B), 0)
    return count, each


@triton.jit
def place(image, channels, C, G, images, POOLED: tl.constexpr):
    # of the channels' statistics in (B, G)
    if POOLED:
        at = image // images * G + channels // (C // G)
    else:
        at = image // images * C + channels
    return at


@triton.jit
def walk_back(N, C, S, G, images, parts, steps, FORM: tl.constexpr):
    # walk's, but the last part first: it was read last, so it may still be in L2; and the channels and their statistics
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    low, _, image, first, tiles = walk(program, N, C, S, parts, steps, FORM)
    channels = low + tl.arange(0, FORM.BLOCK_A)
    return low, image, first, tiles, channels, place(image, channels, C, G, images, FORM.POOLED)
