"""Channels: how the programs of a large input walk it, part by part and a tile at a time."""

import triton
import triton.language as tl

from normkernels._backends.triton.channels.tiles import Tile, offset


@triton.jit
def walk(program, N, C, S, parts, steps, FORM: tl.constexpr):
    # of the part that a program walks: first channel, row in the table of parts, first image and position, tiles
    blocks = tl.cdiv(C, FORM.BLOCK_A)
    low = program % blocks * FORM.BLOCK_A
    row = (program // blocks).to(tl.int64)
    if FORM.IMAGES:
        image, first, left = row * steps, row * 0, N - row * steps
    else:
        image, first = row // parts, row % parts * steps * FORM.BLOCK_B
        left = tl.cdiv(S - first, FORM.BLOCK_B)
    return low, row, image, first, tl.minimum(steps, left)


@triton.jit
def step(i, low, image, first, C, S, FORM: tl.constexpr):
    # the tile i of a part
    if FORM.IMAGES:
        image += i
    else:
        first += i * FORM.BLOCK_B
    inside, positions = tl.arange(0, FORM.BLOCK_A)[:, None], tl.arange(0, FORM.BLOCK_B)[None, :]
    mask = (low + inside < C) & (positions < S - first)
    start = image * C * S + offset(low.to(tl.int64), first, C, S, FORM.LAST)
    return Tile(start, offset(inside, positions, C, S, FORM.LAST), mask)


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
