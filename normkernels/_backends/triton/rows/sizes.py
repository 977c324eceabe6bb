"""Rows: every launch size, from the length of a row, the dtype and the activation alone."""

from typing import NamedTuple

from normkernels._backends.triton.base.launch import Tile, stages, unaligned
from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2

# itemsize of x -> the longest row that one program holds; then the segments of a longer row
FORWARD_LIMIT, BACKWARD_LIMIT = {2: 32768, 4: 24576, 8: 8192}, {2: 8192, 4: 8192, 8: 4096}
FORWARD_SEGMENT = Tile(1, 4096, 8)


class Form(NamedTuple):
    """The constants of a kernel that holds rows. SHIFTED: weights have an offset; STAGES: of the pipeline."""

    ALIGN: int
    BLOCK_M: int
    BLOCK_N: int
    PIECES: int
    EXACT: bool
    SHIFTED: bool
    STAGES: int


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


def pieces(N: int, aligned: bool, forward: bool, activation: str) -> tuple[int, int]:
    """How many tiles of which width hold a row: one, unless three or five have an eighth fewer lanes.

    Where accesses are narrow, up to 32: a thread then has one column of a tile, of x and of the weights alike.
    """
    if not aligned:
        most = (32 if N > 2048 else 16) if forward else (16 if activation == "identity" else 8)
        width = max(16, next_power_of_2(N + 1) // most)
        return cdiv(N, width), width
    best = 1, max(8, next_power_of_2(N))
    for n in (3, 5) if forward else (3,):
        width = max(16, next_power_of_2(cdiv(N, n)))
        if n * width * 8 <= best[0] * best[1] * 7:
            best = n, width
    return best


def form(
    N: int, itemsize: int, elements: int, align: int, shifted: bool, loads: int, activation: str = "identity"
) -> dict[str, Form | int]:
    """Whole rows, about ``elements`` values at least, of so many tensors that a loop loads; and how many warps."""
    aligned = not unaligned(N, itemsize)
    PIECES, BLOCK_N = pieces(N, aligned, not loads, activation)
    BLOCK_M = max(1, elements // next_power_of_2(PIECES * BLOCK_N))
    if not aligned:
        num_warps = BLOCK_N // 32
    else:
        most = 8 if loads and itemsize > 2 else 16
        each = most if PIECES == 1 else 8 if not loads or N > 6144 else 4  # values of a tile for a thread
        num_warps = BLOCK_M * BLOCK_N // (32 * (min(each, 8) if itemsize == 8 else each))
    num_warps = min(16 if itemsize < 8 and not loads and N <= 16384 else 32, max(4, num_warps))
    narrow = align * itemsize < 4
    depth = 1 if narrow or not loads else stages(loads * BLOCK_M * PIECES * BLOCK_N * itemsize, num_warps)
    depth = min(depth, 5 if PIECES == 1 else 4)  # addresses of three tiles five times over do not fit the registers
    exact = PIECES * BLOCK_N == N
    return {"FORM": Form(align, BLOCK_M, BLOCK_N, PIECES, exact, shifted, depth), "num_warps": num_warps}


def forward_form(N: int, itemsize: int, align: int, shifted: bool) -> dict[str, Form | int] | None:
    if N > FORWARD_LIMIT[itemsize] * (3 if unaligned(N, itemsize) else 8) // 8:
        return None
    return form(N, itemsize, 1024 if itemsize == 8 else 2048, align, shifted, 0)


def backward_form(
    N: int, itemsize: int, align: int, shifted: bool, loads: int, activation: str, centered: bool, each: bool
) -> dict[str, Form | int] | None:
    """Half as far with an activation or "gate", which keep more values alive, further without a mean and a bias.

    each: every sample has weights of its own, and its place takes registers.
    """
    limit = BACKWARD_LIMIT[itemsize] // (1 if activation == "identity" else 2)
    if unaligned(N, itemsize):
        limit = limit * 2 // 3
    elif not centered and itemsize == 2:  # in float32 three tiles of such rows fit no shared memory of 99 KB
        limit = limit * 3 // 2
    elements = 1024 if each and unaligned(N, itemsize) else 2048
    return None if limit < N else form(N, itemsize, elements, align, shifted, loads, activation)


def segment_form(N: int, itemsize: int, align: int, shifted: bool, gated: bool) -> dict[str, Form | int]:
    """Of a program that walks one long row. Three tiles of it and of a gate that are not of 16 bits fit no 99 KB."""
    BLOCK_N, depth = 2048 if itemsize == 8 else 4096, 2 if gated and itemsize > 2 else 3
    return {"FORM": Form(align, 1, BLOCK_N, 1, N % BLOCK_N == 0, shifted, depth), "num_warps": 8}


def strip_form(N: int, itemsize: int, align: int, shifted: bool, gated: bool) -> dict[str, Form | int]:
    """Of a program that walks down all rows, some columns wide; of half as many rows where a gate is in float64."""
    wide = gated and itemsize == 8
    return {"FORM": Form(align, 16 if wide else 32, 64, 1, N % 64 == 0, shifted, 2 if wide else 3), "num_warps": 4}
