"""Strided rows: launch sizes, from shape and dtype alone."""

from normkernels._backends.triton.base.launch import Tile, unaligned
from normkernels._backends.triton.base.numbers import next_power_of_2

# A program's tile is BLOCK_M channels of BLOCK_N neighbouring pixels; a pixel of at most BLOCK_M channels is read once.
LIMIT = {2: (512, 256), 4: (512, 256), 8: (128, 64)}  # itemsize of x -> most channels of one tile: forward, backward
LOOP = {2: Tile(64, 64, 8), 4: Tile(64, 32, 4), 8: Tile(32, 32, 4)}  # more channels: a loop of tiles, twice


def tile(N: int, S: int, itemsize: int, limit: int) -> Tile:
    """Channels by pixels, from N, S and the dtype alone; S that 128-bit accesses do not divide takes more registers."""
    if (min(limit, 64) if unaligned(S, itemsize) else limit) < N:
        return LOOP[itemsize]._replace(num_warps=8) if unaligned(S, itemsize) else LOOP[itemsize]
    BLOCK_M = max(32, next_power_of_2(N))
    return Tile(BLOCK_M, 32, max(4, min(16, BLOCK_M // (16 if itemsize < 8 else 4))))


def forward_tile(N: int, S: int, itemsize: int) -> Tile:
    return tile(N, S, itemsize, LIMIT[itemsize][0])


def backward_tile(N: int, S: int, itemsize: int) -> Tile:
    return tile(N, S, itemsize, LIMIT[itemsize][1])
