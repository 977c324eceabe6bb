"""Online: launch sizes of what works on tables (N, C)."""

from torch import Tensor

from normkernels._backends.triton.base.launch import alignment
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.channels.sizes import power

TILE, ROWS, LANES = 512, 64, 8  # values of a scanned tile; its most samples; its least channels: a sector of float32


def warps(values: int, each: int) -> int:
    """Of a tile in which a thread has ``each`` values."""
    return max(1, min(8, values // (32 * each)))


def scanning(t: Tensor) -> tuple[int, dict[str, int]]:
    """Programs and tile of a scan over the rows of a table (N, C), and of what follows them."""
    N, C = t.shape
    rows = min(power(N + 1), ROWS)
    lanes = max(LANES, min(power(C), TILE // rows))
    # two values for each thread, which hold up to five numbers each
    tile = {"ALIGN": alignment(t, C), "BLOCK_B": rows, "BLOCK_A": lanes, "num_warps": max(2, warps(rows * lanes, 2))}
    return cdiv(C, lanes), tile


def averaging(t: Tensor) -> tuple[int, dict[str, int]]:
    """Programs and tile of a mean over the channels of each row of a table."""
    N, C = t.shape
    lanes = min(power(C), 2 * TILE)
    return N, {"ALIGN": alignment(t, C), "BLOCK_A": lanes, "num_warps": warps(lanes, 4)}


def valuing(x: Tensor, t: Tensor) -> tuple[int, dict[str, int]]:
    """Programs and tile over samples of one value, x and tables (N, C)."""
    N, C = t.shape
    lanes = min(power(C), 128)
    rows = min(power(N), 2 * TILE // lanes)
    tile = {"ALIGN": alignment(x, C), "BLOCK_A": lanes, "BLOCK_B": rows, "num_warps": warps(rows * lanes, 8)}
    return cdiv(C, lanes) * cdiv(N, rows), tile
