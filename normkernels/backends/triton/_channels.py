"""Channels: what the kernels of batch, group and instance norm share on a loaded tile, and every launch size.

x is (N, C, S), or (N, S, C) where the channels lie LAST. A plane is one channel of one image: S positions. A statistic
pools PLANES planes, those of one channel over the IMAGES of a batch or those of adjacent channels of one image.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels.backends.triton._activations import derivative
from normkernels.backends.triton._rows import affine, alignment, rounded


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

    def tile(self) -> dict[str, int]:
        return {"BLOCK_A": self.BLOCK_A, "BLOCK_B": self.BLOCK_B, "num_warps": self.num_warps}


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


def sizes(x: Tensor, mean: Tensor, last: bool) -> Sizes:
    N, C, S = (x.shape[0], x.shape[2], x.shape[1]) if last else x.shape
    B, G = mean.shape if mean.dim() == 2 else (1, C)
    return Sizes(N, C, S, B, G, last, x.element_size())


def power(n: int) -> int:
    return triton.next_power_of_2(n)


def resident(z: Sizes, limits: dict[int, int], divisor: int = 1) -> Resident | None:
    """Whole statistics in registers; None if one is too large. Of an image from C, G, S and the dtype alone."""
    K, B = power(z.planes), power(z.S)
    adjacent = z.itemsize * (z.C // z.G) * (1 if z.last else z.S)
    A = min(power(z.G), max(power(triton.cdiv(RUN, adjacent)), SMALLEST // (K * B)))
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
    along = triton.cdiv(z.S, B)
    tiles = triton.cdiv(z.C, A) * along * (z.N if z.images else 1)
    images = z.images and along == 1
    steps = min(z.N if images else along, triton.cdiv(tiles, PARTS), most or tiles)
    return Split(A, B, num_warps, steps, images)


def parts(z: Sizes, s: Split) -> tuple[int, int]:
    """How many runs of ``steps`` tiles one image, or the batch of pooled images, has; and how many all have."""
    each = triton.cdiv(z.N, s.steps) if s.IMAGES else triton.cdiv(triton.cdiv(z.S, s.BLOCK_B), s.steps)
    return each, each if s.IMAGES else each * z.N


def merging(z: Sizes, rows: int) -> tuple[int, dict[str, int]]:
    """Programs and tile for the sum over the partial results, ``rows`` for every channel of a batch."""
    BLOCK_R, num_warps = (256, 8) if rows * (z.C // z.G) > 64 else (16, 2)
    return z.B * triton.cdiv(z.G, 16), {"BLOCK_R": BLOCK_R, "BLOCK_G": 16, "num_warps": num_warps}


def holding(x: Tensor, z: Sizes, r: Resident) -> tuple[int, tuple[int, ...], dict[str, bool | int]]:
    """Programs, runtime arguments and constants of a kernel that holds statistics of x."""
    pooled = z.C // z.G if z.last and z.C > z.G else z.row
    constants = {"IMAGES": z.images, "LAST": z.last, "ALIGN": alignment(x, z.row, pooled)} | r._asdict()
    return z.B * triton.cdiv(z.G, r.BLOCK_A), (z.C, z.S, z.G, z.planes), constants


def walking(x: Tensor, z: Sizes, s: Split) -> tuple[int, tuple[int, ...], dict[str, bool | int]]:
    """Programs, runtime arguments and constants of a kernel that walks the parts of x."""
    each, rows = parts(z, s)
    given = z.N, z.C, z.S, z.G, z.N // z.B, each, s.steps
    constants = {"IMAGES": s.IMAGES, "POOLED": z.C > z.G, "LAST": z.last, "ALIGN": alignment(x, z.row)} | s.tile()
    return (
        rows * triton.cdiv(z.C, s.BLOCK_A),
        given,
        constants,
    )


@triton.jit
def aligned(C, S, LAST: tl.constexpr, ALIGN: tl.constexpr):
    if LAST:
        C = C // ALIGN * ALIGN
    else:
        S = S // ALIGN * ALIGN
    return C, S


@triton.jit
def offset(channels, positions, C, S, LAST: tl.constexpr):
    # within an image; 32 bits do within a tile
    if LAST:
        at = positions * C + channels
    else:
        at = channels * S + positions
    return at


@triton.jit
def held(
    C, S, G, PLANES, IMAGES: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    # of the statistics that a program holds: places in (B, G), which exist, channels, tile of x
    batch = (tl.program_id(0) // tl.cdiv(G, BLOCK_A)).to(tl.int64)
    low = tl.program_id(0) % tl.cdiv(G, BLOCK_A) * BLOCK_A
    groups, planes, positions = low + tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_B)[None, None, :]
    stat, there = batch * G + groups, groups < G
    inside = tl.arange(0, BLOCK_A)
    if IMAGES:
        at = planes.to(tl.int64)[None, :, None] * C * S + offset(inside[:, None, None], positions, C, S, LAST)
    elif BLOCK_K == 1:
        at = offset(inside[:, None, None], positions, C, S, LAST)
    else:
        if LAST:
            PLANES = PLANES // ALIGN * ALIGN
        groups = groups[:, None] * PLANES + planes[None, :]
        low = low * PLANES
        at = offset((inside[:, None] * PLANES + planes[None, :])[:, :, None], positions, C, S, LAST)
    start = batch * C * S + offset(low.to(tl.int64), 0, C, S, LAST)
    return stat, there, groups, (start, at, (broad(groups, 3) < C) & (planes[None, :, None] < PLANES) & (positions < S))


@triton.jit
def broad(v, RANK: tl.constexpr):
    # v with dims of 1 behind, loaded before it gets them, for a load of such dims is repeated
    if v is not None:
        for _ in tl.static_range(RANK - len(v.shape)):
            v = tl.expand_dims(v, -1)
    return v


@triton.jit
def total(x):
    # over the planes and positions of each statistic
    return tl.sum(tl.sum(x, axis=2), axis=1)


@triton.jit
def walk(program, N, C, S, parts, steps, IMAGES: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr):
    # of the part that a program walks: first channel, row in the table of parts, first image and position, tiles
    blocks = tl.cdiv(C, BLOCK_A)
    low = program % blocks * BLOCK_A
    row = (program // blocks).to(tl.int64)
    if IMAGES:
        image, first, left = row * steps, row * 0, N - row * steps
    else:
        image, first = row // parts, row % parts * steps * BLOCK_B
        left = tl.cdiv(S - first, BLOCK_B)
    return low, row, image, first, tl.minimum(steps, left)


@triton.jit
def step(
    i, low, image, first, C, S,
    IMAGES: tl.constexpr, LAST: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    # the tile i of a part
    if IMAGES:
        image += i
    else:
        first += i * BLOCK_B
    inside, positions = tl.arange(0, BLOCK_A)[:, None], tl.arange(0, BLOCK_B)[None, :]
    mask = (low + inside < C) & (positions < S - first)
    return image * C * S + offset(low.to(tl.int64), first, C, S, LAST), offset(inside, positions, C, S, LAST), mask


@triton.jit
def place(image, channels, C, G, images, POOLED: tl.constexpr):
    # of the channels' statistics in (B, G)
    if POOLED:
        at = image // images * G + channels // (C // G)
    else:
        at = image // images * C + channels
    return at


@triton.jit
def records(C, G, rows, start, BLOCK_R: tl.constexpr, BLOCK_G: tl.constexpr):
    # a tile of the (rows of a batch, C) partial results: BLOCK_R of those of each of BLOCK_G statistics
    batch = (tl.program_id(0) // tl.cdiv(G, BLOCK_G)).to(tl.int64)
    groups = tl.program_id(0) % tl.cdiv(G, BLOCK_G) * BLOCK_G + tl.arange(0, BLOCK_G)
    record = start + tl.arange(0, BLOCK_R)[:, None]
    row = record // (C // G)
    channels = groups[None, :] * (C // G) + record % (C // G)
    mask = (row < rows) & (groups[None, :] < G)
    return batch * G + groups, groups < G, row, channels, (batch * rows + row) * C + channels, mask


@triton.jit
def load(P, at, mask, dtype: tl.constexpr):
    if P is not None:
        P = tl.load(P + at, mask=mask, other=0.0).to(dtype)
    return P


@triton.jit
def load_tile(P, tile, dtype: tl.constexpr):
    if P is not None:
        P = tl.load(P + tile[0] + tile[1], mask=tile[2], other=0.0).to(dtype)
    return P


@triton.jit
def store_tile(P, value, tile):
    if P is not None:
        tl.store(P + tile[0] + tile[1], rounded(value, P.dtype.element_ty), mask=tile[2])


@triton.jit
def store(P, value, at, mask):
    if P is not None:
        tl.store(P + at, rounded(value, P.dtype.element_ty), mask=mask)


@triton.jit
def statistics(MEAN, VAR, at, mask, EPS: tl.constexpr):
    # mean and rstd = (var + eps)^(-1/2)
    mean = tl.load(MEAN + at, mask=mask, other=0.0)
    return mean, tl.rsqrt(tl.load(VAR + at, mask=mask, other=1.0) + EPS)


@triton.jit
def slope_of(rstd, w):
    # of u over x: rstd w
    if w is not None:
        rstd = rstd * w
    return rstd


@triton.jit
def preactivation(xhat, w, b, skip):
    # u = xhat w + b + skip
    u = affine(xhat, w, b)
    if skip is not None:
        u = u + skip
    return u


@triton.jit
def grads(DY, X, SKIP, w, b, mean, rstd, tile, ACT: tl.constexpr, SLOPE: tl.constexpr):
    # xhat and du = dy act'(u); du is 0 outside the tensor, for dy is
    xhat = (load_tile(X, tile, rstd.dtype) - mean) * rstd
    du = load_tile(DY, tile, rstd.dtype)
    if ACT != "identity":
        du = du * derivative(preactivation(xhat, w, b, load_tile(SKIP, tile, rstd.dtype)), ACT, SLOPE)
    return xhat, du
