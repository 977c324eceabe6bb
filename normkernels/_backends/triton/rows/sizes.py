"""Rows: every launch size, from the length of a row, the dtype and the activation alone."""

from normkernels._backends.triton.base.launch import Tile, unaligned
from normkernels._backends.triton.base.numbers import next_power_of_2

# itemsize of x -> the longest row that one program holds; then the segments of a longer row
FORWARD_LIMIT, BACKWARD_LIMIT = {2: 32768, 4: 32768, 8: 8192}, {2: 8192, 4: 8192, 8: 4096}
FORWARD_SEGMENT = Tile(1, 4096, 8)
BACKWARD_SEGMENT = {2: Tile(1, 1024, 4), 4: Tile(1, 1024, 4), 8: Tile(1, 1024, 8)}
GROUP = 16  # rows of a segment whose parameter gradients one program sums


def tile(N: int, limit: int, elements: int, itemsize: int) -> Tile | None:
    """Whole rows in registers, at least ``elements`` values in all; None if a row is longer than ``limit``.

    From N, the dtype and the activation alone, so that a row's result depends neither on M nor on the device.
    """
    if limit < N:
        return None
    BLOCK_N = max(16, next_power_of_2(N))
    BLOCK_M = max(1, elements // BLOCK_N)
    per_thread = 8 if itemsize == 8 else 16
    return Tile(BLOCK_M, BLOCK_N, min(32, max(4, BLOCK_M * BLOCK_N // (32 * per_thread))))


def forward_tile(N: int, itemsize: int) -> Tile | None:
    limit = FORWARD_LIMIT[itemsize] // (4 if unaligned(N, itemsize) else 1)
    return tile(N, limit, 2048, itemsize)


def backward_tile(N: int, itemsize: int, activation: str) -> Tile | None:
    """Half as far with an activation, which keeps more values alive."""
    limit = BACKWARD_LIMIT[itemsize] // (2 if unaligned(N, itemsize) else 1) // (1 if activation == "identity" else 2)
    return tile(N, limit, 2048 if itemsize == 4 else 1024, itemsize)
