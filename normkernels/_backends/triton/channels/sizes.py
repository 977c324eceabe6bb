"""Channels: every launch size of batch, group and instance norm, from shape and dtype alone.

A plane is one channel of one image: S positions. A statistic pools PLANES planes, those of one channel over the IMAGES
of a batch or those of adjacent channels of one image. Where a program can hold whole statistics, x is read once.
"""

from typing import NamedTuple

from torch import Tensor

from normkernels._backends.triton.base import clusters
from normkernels._backends.triton.base.launch import alignment, stages
from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2


class Resident(NamedTuple):
    """One program holds whole statistics: BLOCK_A of them, BLOCK_K planes each, BLOCK_B positions.

    num_ctas: blocks of the program, a cluster of them where one is too few.
    """

    BLOCK_A: int
    BLOCK_K: int
    BLOCK_B: int
    num_warps: int
    num_ctas: int = 1


class Split(NamedTuple):
    """A program walks ``steps`` tiles of BLOCK_A channels by BLOCK_B positions, of one image or else of all IMAGES."""

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
    """The constants of a kernel that merges partial results: BLOCK_R at a time of each of BLOCK_G statistics.

    APART: the parameters' gradients are sums of their own, of all rows, so many at a time of eight columns; else 0.
    """

    BLOCK_R: int
    BLOCK_G: int
    APART: int


class Walked(NamedTuple):
    """The constants of a kernel that walks; POOLED: statistics are of several channels; LONE: each part is one tile."""

    IMAGES: bool
    POOLED: bool
    LAST: bool
    ALIGN: int
    BLOCK_A: int
    BLOCK_B: int
    STAGES: int
    LONE: bool


# itemsize of x -> the most values that a program holds, padded to powers of two; values and warps of a walked tile
FORWARD_LIMIT, BACKWARD_LIMIT = {2: 32768, 4: 16384, 8: 4096}, {2: 16384, 4: 8192, 8: 4096}
FORWARD_TILE = {2: (4096, 8), 4: (4096, 8), 8: (1024, 4)}
BACKWARD_TILE = {2: (2048, 4), 4: (2048, 4), 8: (512, 4)}
ALONE, EACH = 16384, 8192  # values from which on clusters hold a statistic, and how many a block of one then has
SMALLEST = 2048  # values of a program that holds several statistics
RUNS = 64, 32  # adjacent bytes of a tile at least: two sectors, or one where a program holds no more
STEPS = 4  # tiles of a program that only applies: more save loads of parameters, fewer fill the device evenly
LEAST = 16  # programs of an image, then up to STEPS tiles to each: many images leave so many results to sum up
PARTS = 512  # programs of 8 warps among which one image (or a batch of pooled ones) is split at most, then some


class Sizes(NamedTuple):
    """The sizes of a call."""

    N: int
    C: int
    S: int
    B: int
    G: int
    last: bool
    itemsize: int
    most: int = 1  # blocks that a program may have

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
    def flat(self) -> "Sizes":
        """Of what asks for no parameter: planes of one statistic lie side by side, so they are one plane."""
        return self if self.last else self._replace(C=self.G, S=self.S * (self.C // self.G))

    @property
    def whole(self) -> bool:
        """Whether 128-bit accesses divide a row. If not, every element has its own mask, and that takes registers."""
        return self.row % (16 // self.itemsize) == 0


def of(x: Tensor, mean: Tensor, last: bool) -> Sizes:
    N, C, S = (x.shape[0], x.shape[2], x.shape[1]) if last else x.shape
    B, G = mean.shape if mean.dim() == 2 else (1, C)
    return Sizes(N, C, S, B, G, last, x.element_size(), clusters.blocks(x))


def power(n: int) -> int:
    return next_power_of_2(n)


def resident(z: Sizes, limits: dict[int, int], divisor: int = 1) -> Resident | None:
    """Whole statistics in registers; None if one is too large. Of an image from C, G, S and the dtype alone."""
    K, B = power(z.planes), power(z.S)
    adjacent = z.itemsize * (z.C // z.G) * (1 if z.last else z.S)
    # a tile of many rows needs more registers for what goes with a row
    limit = limits[z.itemsize] // divisor // (2 if z.last or z.images else 1) // (1 if z.whole else 4)
    if found := clustered(z, K, B, limit):
        return found
    for run in RUNS:
        A = min(power(z.G), max(power(cdiv(run, adjacent)), SMALLEST // (K * B)))
        if (values := A * K * B) <= limit:
            return Resident(A, K, B, warps(values, z.itemsize))
    return None


def clustered(z: Sizes, K: int, B: int, limit: int) -> Resident | None:
    """One statistic in the registers of a cluster, where one block is too small for it or would be slow.

    None where channels lie last: a block would have a few of them, and so accesses of a few bytes; nor in float64.
    """
    values = K * B
    num_ctas = max(values // limit, min(z.most, values // EACH))
    if z.last or z.itemsize == 8 or values <= min(limit, ALONE) or not 1 < num_ctas <= z.most:
        return None
    each = values // num_ctas
    return Resident(1, K, B, 16 if each > ALONE else max(4, min(8, each // 512)), num_ctas)


def warps(values: int, itemsize: int) -> int:
    """Of a program that holds so many values: 16 to a thread, then 32, which takes fewer instructions for each."""
    if itemsize == 8:
        return min(32, max(4, values // 256))
    return max(4, min(values // 512, max(8, values // 1024)))


def split(z: Sizes, tile: dict[int, tuple[int, int]], most: int | None = None) -> Split:
    """How a statistic that no program holds is shared out. Of an image from C, S and the dtype alone."""
    values, num_warps = tile[z.itemsize]
    values //= 1 if z.whole else 2
    images = z.N if z.images else 1
    if z.last:
        A = min(power(z.C), 2 * RUNS[0] // z.itemsize)
        B = min(power(z.S), values // A)
    else:
        B = min(power(z.S), values)
        for narrower in (1024, 512, 256):  # channels beside each other, where an eighth fewer lanes are idle so
            if narrower < B and cdiv(z.S, narrower) * narrower * 8 <= cdiv(z.S, B) * B * 7 and z.C * narrower >= values:
                B = narrower
        A = min(power(z.C), values // B)
    along = cdiv(z.S, B) * images
    # what only applies may be shared out by the number of images too
    tiles = cdiv(z.C, A) * along * (1 if z.images or most is None else z.N)
    longer = 1 if z.images or most else min(STEPS, cdiv(tiles, LEAST))
    steps = min(along, max(longer, cdiv(tiles, PARTS * 8 // num_warps)), most or tiles)
    return Split(A, B, num_warps, steps, z.images)


def parts(z: Sizes, s: Split) -> tuple[int, int]:
    """How many runs of ``steps`` tiles one image, or the batch of pooled images, has; and how many all have."""
    along = cdiv(z.S, s.BLOCK_B)
    each = cdiv(z.N * along if s.IMAGES else along, s.steps)
    return each, each if s.IMAGES else each * z.N


def merging(z: Sizes, rows: int, apart: int = 0) -> tuple[int, dict[str, Merged | int]]:
    """Programs and tile for sums over the ``rows`` of partial results of every batch; and for so many ``apart``."""
    each, pooled = rows * (z.C // z.G), z.C > z.G
    if each > 64:  # all that a program reads at once, as a rule; eight columns are a sector
        BLOCK_R, BLOCK_G, num_warps = (2048, 1, 8) if pooled and each > 512 else (512, 4, 8) if pooled else (256, 8, 8)
    else:
        BLOCK_R, BLOCK_G, num_warps = (64, 8, 4) if each > 16 else (16, 8, 4)
    # a number of warps that the batch chose would choose the order of the sums of an image
    programs, at_once = z.B * cdiv(z.G, BLOCK_G) + apart * cdiv(z.C, 8), min(64 * num_warps, max(16, power(z.B * rows)))
    return programs, {"FORM": Merged(BLOCK_R, BLOCK_G, at_once if apart else 0), "num_warps": num_warps}


def holding(x: Tensor, z: Sizes, r: Resident) -> tuple[int, tuple[int, ...], dict[str, Held | int]]:
    """Programs, runtime arguments and constants of a kernel that holds statistics of x."""
    pooled = z.C // z.G if z.last and z.C > z.G else z.row
    form = Held(z.images, z.last, alignment(x, z.row, pooled), r.BLOCK_A, r.BLOCK_K, r.BLOCK_B)
    constants = {"FORM": form, "num_warps": r.num_warps} | ({"num_ctas": r.num_ctas} if r.num_ctas > 1 else {})
    return z.B * cdiv(z.G, r.BLOCK_A), (z.C, z.S, z.G, z.planes), constants


def walking(z: Sizes, s: Split, *read: Tensor | None) -> tuple[int, tuple[int, ...], dict[str, Walked | int]]:
    """Programs, runtime arguments and constants of a kernel that walks the parts of the tensors that it reads.

    A program of one tile has no pipeline, nor have accesses too narrow to go to shared memory.
    """
    x, *others = [t for t in read if t is not None]
    each, rows = parts(z, s)
    given, align = (z.N, z.C, z.S, z.G, z.N // z.B, each, s.steps), alignment(x, z.row)
    lone, narrow = s.steps == 1, align * z.itemsize < 4
    depth = 1 if lone or narrow else stages((1 + len(others)) * s.BLOCK_A * s.BLOCK_B * z.itemsize, s.num_warps)
    form = Walked(s.IMAGES, z.C > z.G, z.last, align, s.BLOCK_A, s.BLOCK_B, depth, lone)
    return rows * cdiv(z.C, s.BLOCK_A), given, {"FORM": form, "num_warps": s.num_warps}
