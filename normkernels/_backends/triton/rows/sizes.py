"""Rows: every launch size, from the length of a row, the dtype and the activation alone.

How many programs share a long row depends on the number of rows, which no row's bits do.
"""

from typing import NamedTuple

from torch import Tensor

from normkernels._backends.triton.base.launch import SHARED, Tile, multiprocessors, stages, unaligned
from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2

# itemsize of x -> the longest row that one program holds, and the longest of which 128-bit accesses leave a rest
FORWARD_LIMIT, BACKWARD_LIMIT = {2: 32768, 4: 24576, 8: 8192}, {2: 8192, 4: 8192, 8: 4096}
ODD_FORWARD_LIMIT, ODD_BACKWARD_LIMIT = {2: 24576, 4: 18432, 8: 3072}, {2: 8704, 4: 9216, 8: 2730}
FORWARD_SEGMENT = Tile(1, 4096, 8)
EACH = 8192  # columns of a row that a block of a cluster has at least


class Form(NamedTuple):
    """The constants of a kernel that holds rows. SHIFTED: weights have an offset; STAGES: of the pipeline.

    AHEAD: what a loop's next turn takes waits in registers; TILES: of such a turn.
    """

    ALIGN: int
    BLOCK_M: int
    BLOCK_N: int
    PIECES: int
    EXACT: bool
    SHIFTED: bool
    STAGES: int
    AHEAD: bool = False
    TILES: int = 1


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


class Pieces(NamedTuple):
    """How many tiles of which width hold a row, and how many such rows one turn of a loop takes."""

    count: int
    width: int
    rows: int = 1


def pieces(N: int, forward: bool) -> Pieces:
    """One tile, unless three or five have an eighth fewer lanes."""
    best = Pieces(1, max(8, next_power_of_2(N)))
    for n in (3, 5) if forward else (3,):
        width = max(16, next_power_of_2(cdiv(N, n)))
        if n * width * 8 <= best.count * best.width * 7:
            best = Pieces(n, width)
    return best


def narrow_pieces(N: int, itemsize: int, forward: bool, activation: str) -> Pieces:
    """Of narrow accesses, up to 32: a thread then has one column of a tile, of x and of the weights alike.

    Backward in 16 bits the next rows wait in registers: up to ten tiles leave room for two rows a turn.
    """
    most = (32 if N > 2048 else 16) if forward else (16 if activation == "identity" else 8)
    width = max(16, next_power_of_2(N + 1) // most)
    if forward and N > 12288:
        width = max(width, 1024)  # 25 tiles and more of 16 warps spill 8 bytes in float16
    between = itemsize == 4 and 768 < N <= 1024  # one row of 13 tiles or more, two warps to each, would spill
    if forward or activation != "identity" or N <= 128 or not (itemsize == 2 or between):
        return Pieces(cdiv(N, width), width)
    width = min(512, width * (1 if N <= 12 * width else 2))
    return Pieces(cdiv(N, width), width, 2 if N <= 10 * width else 1)


def warps(p: Pieces, N: int, itemsize: int, BLOCK_M: int, loads: int) -> int:
    """Narrow: a thread for each column of a tile, and 16 where two warps share a row.

    A thread of 16 warps has no more than 128 registers: with 131 a multiprocessor would hold a program less.
    """
    if unaligned(N, itemsize):
        num_warps = 16 if p.rows > 1 and p.width == 64 else p.width // 32
    else:
        most = 8 if loads and itemsize > 2 else 16
        each = most if p.count == 1 else 8 if not loads or N > 6144 else 4  # values of a tile for a thread
        num_warps = BLOCK_M * p.width // (32 * (min(each, 8) if itemsize == 8 else each))
    return min(16 if itemsize < 8 and not loads and N <= 16384 else 32, max(4, num_warps))


def form(
    N: int, itemsize: int, elements: int, align: int, shifted: bool, loads: int, activation: str = "identity",
    centered: bool = True, num_ctas: int = 1,
) -> dict[str, Form | int]:  # fmt: skip
    """Whole rows, about ``elements`` values at least, of so many tensors that a loop loads; warps, and blocks if many.

    num_ctas: blocks of a program, each of which holds a part of a row.
    """
    odd = unaligned(N, itemsize)
    p = narrow_pieces(N, itemsize, not loads, activation) if odd else pieces(N, not loads)
    if itemsize == 4 and loads and not (odd or centered) and p.width == 256:
        elements //= 2  # eight rows of 256 spill 8 bytes
    BLOCK_M = max(1, elements // next_power_of_2(p.count * p.width))
    width = p.width // num_ctas
    num_warps = warps(p._replace(width=width), N // num_ctas, itemsize, BLOCK_M, loads)
    if p.rows > 1:
        BLOCK_M, align = num_warps * 32 // p.width, 1
    # a pipeline takes four bytes of a thread at least, and tiles that shared memory holds
    narrow = min(align, max(1, BLOCK_M * width // (32 * num_warps))) * itemsize < 4
    tile_bytes = loads * p.rows * BLOCK_M * p.count * width * itemsize
    depth = 1 if narrow or not loads or tile_bytes > SHARED else stages(tile_bytes, num_warps)
    depth = min(depth, 5 if p.count == 1 else 4)  # addresses of three tiles five times over do not fit the registers
    ahead = narrow and loads > 0 and not (centered and p.count > 14)  # two rows and sums for two parameters do not
    sizes = align, BLOCK_M, p.width, p.count, p.count * p.width == N, shifted
    clustered = {"num_ctas": num_ctas} if num_ctas > 1 else {}
    return {"FORM": Form(*sizes, depth, ahead, p.rows), "num_warps": num_warps} | clustered


def held_by(N: int, itemsize: int, limit: int, most: int, fewest: int = 1) -> int | None:
    """How many blocks, ``fewest`` or more, hold a row of which one holds ``limit``; None where it takes over ``most``.

    Rows of narrow accesses and in float64, of which a block holds less, have one block, or none.
    """
    most = 1 if unaligned(N, itemsize) or itemsize == 8 else most
    needed = next_power_of_2(cdiv(N, limit))
    return max(needed, min(most, fewest)) if needed <= most else None


def forward_form(N: int, itemsize: int, align: int, shifted: bool, most: int = 1) -> dict[str, Form | int] | None:
    """Of programs that have up to ``most`` blocks; None where they hold no row. Of many, a block has EACH or more."""
    limit = (ODD_FORWARD_LIMIT if unaligned(N, itemsize) else FORWARD_LIMIT)[itemsize]
    num_ctas = held_by(N, itemsize, limit, most, next_power_of_2(N // EACH + 1) // 2)
    if num_ctas is None:
        return None
    found = form(N, itemsize, 1024 if itemsize == 8 else 2048, align, shifted, 0, num_ctas=num_ctas)
    if num_ctas > 1:  # few warps, so that several blocks find room
        p = pieces(N, forward=True)
        found["num_warps"] = 8 if p.count * p.width <= 2 * EACH * num_ctas else 16
    return found


def backward_form(
    N: int, itemsize: int, align: int, shifted: bool, loads: int, activation: str, centered: bool, each: bool,
    most: int = 1,
) -> dict[str, Form | int] | None:  # fmt: skip
    """Half as far with an activation or "gate", which keep more values alive, further without a mean and a bias.

    each: every sample has weights of its own, and its place takes registers; most: blocks of a program.
    """
    limit = BACKWARD_LIMIT[itemsize] // (1 if activation == "identity" else 2)
    if unaligned(N, itemsize):
        limit = ODD_BACKWARD_LIMIT[itemsize] if activation == "identity" else limit * 2 // 3
    elif not centered and itemsize == 2:  # in float32 three tiles of such rows fit no shared memory of 99 KB
        limit = limit * 3 // 2
    elements = 1024 if each and unaligned(N, itemsize) else 2048
    if num_ctas := held_by(N, itemsize, limit, most):
        return form(N, itemsize, elements, align, shifted, loads, activation, centered, num_ctas)
    return None


def segment_form(
    N: int, itemsize: int, align: int, shifted: bool, gated: bool, backward: bool
) -> dict[str, Form | int]:  # fmt: skip
    """Of a program that walks one long row. Three tiles of it and of a gate that are not of 16 bits fit no 99 KB.

    Backward of narrow accesses the next tile waits in registers: fewer values a thread leave room for more programs.
    """
    BLOCK_N, depth = 2048 if itemsize == 8 else 4096, 2 if gated and itemsize > 2 else 3
    ahead = backward and align * itemsize < 4
    if ahead:
        BLOCK_N = 2048
    # what is asked for ahead of the last tile is beyond the row
    sizes = align, 1, BLOCK_N, 1, N % BLOCK_N == 0 and not ahead, shifted
    return {"FORM": Form(*sizes, depth, ahead), "num_warps": BLOCK_N // 256 if ahead else 8}


def shares(x: Tensor) -> int:
    """Programs that a long row of few has, two on each multiprocessor; 1 where fewer than four do not pay a launch."""
    found = 2 * multiprocessors(x) // max(1, len(x))
    return found if found > 3 else 1


def part(N: int) -> int:
    """Columns of which a row's sums are added: 4096, of more than eight such parts 8192, of at most 32 parts of a row.

    From N alone, as the order of a sum must be.
    """
    units = cdiv(N, 4096)
    return 4096 * (1 if units <= 8 else max(2, cdiv(units, 32)))


def strip_form(
    N: int, itemsize: int, align: int, shifted: bool, gated: bool, few: int | None
) -> dict[str, Form | int]:  # fmt: skip
    """Of a program that walks down all rows, some columns wide; of half as many rows where a gate is in float64.

    Half as wide where the next rows wait in registers. Of few rows tiles are as wide as they can be, with half as
    many values: the sums of parts take registers. Nothing is asked for ahead.
    """
    wide, ahead = gated and itemsize == 8, align * itemsize < 4
    BLOCK_M, BLOCK_N, depth = 16 if wide else 32, 32 if ahead else 64, 2 if wide else 3
    if few:
        rows = min(BLOCK_M, next_power_of_2(few))
        BLOCK_M, BLOCK_N, ahead, depth = rows, BLOCK_M * BLOCK_N // (2 * rows), False, 1
    sizes = align, BLOCK_M, BLOCK_N, 1, N % BLOCK_N == 0, shifted
    return {"FORM": Form(*sizes, depth, ahead), "num_warps": 4}
