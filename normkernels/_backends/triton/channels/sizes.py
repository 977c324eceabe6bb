"""Channels: every launch size of batch, group and instance norm, from shape and dtype alone.

A plane is one channel of one image: S positions. A statistic pools PLANES planes, those of one channel over the IMAGES
of a batch or those of adjacent channels of one image. Where a program can hold whole statistics, x is read once.
"""

from typing import NamedTuple

from torch import Tensor

from normkernels._backends.triton.base.launch import alignment
from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2


class Resident(NamedTuple):
    """One program holds whole statistics: BLOCK_A of them, BLOCK_K planes each, BLOCK_B positions."""

    BLOCK_A: int
    BLOCK_K: int
    BLOCK_B: int
    num_warps: int


class Split(NamedTuple):
    """A program walks ``steps`` tiles of BLOCK_A channels by BLOCK_B positions, over positions or else over IMAGES."""

    BLOCK_A: int
    BLOCK_B: int
    num_warps: int
    steps: int
    IMAGES: bool


class Held(NamedTuple):
    """The constants of a kernel that holds whole statistics; IMAGES: they pool those of a batch."""

    IMAGES: bool
    LAST: bool
    ALIGN: int
    BLOCK_A: int
    BLOCK_K: int
    BLOCK_B: int


class Merged(NamedTuple):
    """The constants of a kernel that merges partial results: BLOCK_R at a time of each of BLOCK_G statistics."""

    BLOCK_R: int
    BLOCK_G: int


class Walked(NamedTuple):
    """The constants of a kernel that walks; POOLED: statistics are of several channels."""

    IMAGES: bool
    POOLED: bool
    LAST: bool
    ALIGN: int
    BLOCK_A: int
    BLOCK_B: int


# itemsize of x -> the most values that a program holds, padded to powers of two; values and warps of a walked tile
FORWARD_LIMIT, BACKWARD_LIMIT = {2: 32768, 4: 16384, 8: 4096}, {2: 16384, 4: 8192, 8: 4096}
FORWARD_TILE = {2: (4096, 8), 4: (4096, 8), 8: (1024, 4)}
BACKWARD_TILE = {2: (2048, 4), 4: (2048, 4), 8: (512, 4)}
SMALLEST = 2048  # values of a program that holds several statistics
RUN = 64  # adjacent bytes of a tile at least: two sectors
STEPS = 4  # tiles of a program that only applies: more save loads of parameters, fewer fill the device evenly
PARTS = 2048  # programs among which one image (with pooled images: the batch) is split at most, and then some


class Sizes(NamedTuple):
    """The sizes of a call."""

    N: int
    C: int
    S: int
    B: int
    G: int
    last: bool
    itemsize: int

    @property
    def images(self) -> bool:
        return self.N > self.B

    @property
    def planes(self) -> int:
        return self.N // self.B * (self.C // self.G)

    @property
    def row(self) -> int:
        """How many values of x lie side by side in every row of a tile; what divides this may be an access."""
        return self.C if self.last else self.S

    @property
    def whole(self) -> bool:
        """Whether 128-bit accesses divide a row. If not, every element has its own mask, and that takes registers."""
        return self.row % (16 // self.itemsize) == 0


def of(x: Tensor, mean: Tensor, last: bool) -> Sizes:
    N, C, S = (x.shape[0], x.shape[2], x.shape[1]) if last else x.shape
    B, G = mean.shape if mean.dim() == 2 else (1, C)
    return Sizes(N, C, S, B, G, last, x.element_size())


def power(n: int) -> int:
    return next_power_of_2(n)


def resident(z: Sizes, limits: dict[int, int], divisor: int = 1) -> Resident | None:
    """Whole statistics in registers; None if one is too large. Of an image from C, G, S and the dtype alone."""
    K, B = power(z.planes), power(z.S)
    adjacent = z.itemsize * (z.C // z.G) * (1 if z.last else z.S)
    A = min(power(z.G), max(power(cdiv(RUN, adjacent)), SMALLEST // (K * B)))
    # a tile of many rows needs more registers for what goes with a row
    if A * K * B > limits[z.itemsize] // divisor // (2 if z.last or z.images else 1) // (1 if z.whole else 4):
        return None
    return Resident(A, K, B, min(32, max(4, A * K * B // (32 * (8 if z.itemsize == 8 else 16)))))


def split(z: Sizes, tile: dict[int, tuple[int, int]], most: int | None = None) -> Split:
    """How a statistic that no program holds is shared out. Of an image from C, S and the dtype alone."""
    values, num_warps = tile[z.itemsize]
    values //= 1 if z.whole else 2
    if z.last:
        A = min(power(z.C), 2 * RUN // z.itemsize)
        B = min(power(z.S), values // A)
    else:
        B = min(power(z.S), values)
        A = min(power(z.C), values // B)
    along = cdiv(z.S, B)
    tiles = cdiv(z.C, A) * along * (z.N if z.images else 1)
    images = z.images and along == 1
    steps = min(z.N if images else along, cdiv(tiles, PARTS), most or tiles)
    return Split(A, B, num_warps, steps, images)


def parts(z: Sizes, s: Split) -> tuple[int, int]:
    """How many runs of ``steps`` tiles one image, or the batch of pooled images, has; and how many all have."""
    each = cdiv(z.N, s.steps) if s.IMAGES else cdiv(cdiv(z.S, s.BLOCK_B), s.steps)
    return each, each if s.IMAGES else each * z.N


def merging(z: Sizes, rows: int) -> tuple[int, dict[str, Merged | int]]:
    """Programs and tile for the sum over the partial results, ``rows`` for every channel of a batch."""
    BLOCK_R, num_warps = (256, 8) if rows * (z.C // z.G) > 64 else (16, 2)
    return z.B * cdiv(z.G, 16), {"FORM": Merged(BLOCK_R, 16), "num_warps": num_warps}


def holding(x: Tensor, z: Sizes, r: Resident) -> tuple[int, tuple[int, ...], dict[str, Held | int]]:
    """Programs, runtime arguments and constants of a kernel that holds statistics of x."""
    pooled = z.C // z.G if z.last and z.C > z.G else z.row
    form = Held(z.images, z.last, alignment(x, z.row, pooled), r.BLOCK_A, r.BLOCK_K, r.BLOCK_B)
    return z.B * cdiv(z.G, r.BLOCK_A), (z.C, z.S, z.G, z.planes), {"FORM": form, "num_warps": r.num_warps}


def walking(x: Tensor, z: Sizes, s: Split) -> tuple[int, tuple[int, ...], dict[str, Walked | int]]:
    """Programs, runtime arguments and constants of a kernel that walks the parts of x."""
    each, rows = parts(z, s)
    given = z.N, z.C, z.S, z.G, z.N // z.B, each, s.steps
    form = Walked(s.IMAGES, z.C > z.G, z.last, alignment(x, z.row), s.BLOCK_A, s.BLOCK_B)
    return rows * cdiv(z.C, s.BLOCK_A), given, {"FORM": form, "num_warps": s.num_warps}
