"""Strided rows: what the kernels share on a loaded tile."""

from typing import NamedTuple

import triton
import triton.language as tl

from normkernels._backends.triton.base.activations import derivative
from normkernels._backends.triton.base.values import affine, number, rounded


class Tile(NamedTuple):
    """Channels by neighbouring pixels of an image: where they lie from its start on, and which exist."""

    start: tl.tensor
    channels: tl.tensor
    pixels: tl.tensor
    S: tl.tensor


@triton.jit
def locate(block, N, S, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr):
    # the image and the pixels of a block, S with its alignment, and where the image starts
    S = S // ALIGN * ALIGN
    image = block // tl.cdiv(S, BLOCK_N) + tl.zeros([1], tl.int64)
    pixels = block % tl.cdiv(S, BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    return image, pixels, S, (image * N * S)[:, None]


@triton.jit
def load_tile(P, tile, N, dtype: tl.constexpr):
    mask = (tile.channels[:, None] < N) & (tile.pixels[None, :] < tile.S)
    at = tile.start + tile.channels[:, None].to(tl.int64) * tile.S + tile.pixels[None, :]
    return tl.load(P + at, mask=mask, other=0.0).to(dtype)


@triton.jit
def store_tile(P, value, tile, N):
    mask = (tile.channels[:, None] < N) & (tile.pixels[None, :] < tile.S)
    at = tile.start + tile.channels[:, None].to(tl.int64) * tile.S + tile.pixels[None, :]
    tl.store(P + at, rounded(value, P.dtype.element_ty), mask=mask)


@triton.jit
def load_channel(P, channels, N, OFFSET, dtype: tl.constexpr):
    # p + offset as (BLOCK_M, 1), or None
    if P is not None:
        return (tl.load(P + channels, mask=channels < N, other=0.0).to(dtype) + number(OFFSET, dtype))[:, None]


@triton.jit
def load_sum(t, tile, N, dtype: tl.constexpr):
    # s = x + residual, as rounded in memory
    s = load_tile(t.x, tile, N, dtype)
    if t.residual is not None:
        s = rounded(s + load_tile(t.residual, tile, N, dtype), t.x.dtype.element_ty)
        store_tile(t.summed, s, tile, N)
    return s.to(dtype)


@triton.jit
def centre(x, channels, N, count):
    # x - mean over the channels, mean in two steps, and the sum of squares
    mean = tl.sum(x, axis=0) / count
    x = tl.where(channels[:, None] < N, x - mean[None, :], 0.0)
    rest = tl.sum(x, axis=0) / count
    x = tl.where(channels[:, None] < N, x - rest[None, :], 0.0)
    return x, mean, rest, tl.sum(x * x, axis=0)


@triton.jit
def grads(t, mean, rstd, tile, N, OFFSET, SLOPE, ACT: tl.constexpr):
    # xhat, du = dy act'(u), g = du (w + offset); du and g are 0 outside the tensor, for dy is
    xhat = (load_tile(t.x, tile, N, rstd.dtype) - mean[None, :]) * rstd[None, :]
    du = load_tile(t.dy, tile, N, rstd.dtype)
    w = load_channel(t.weight, tile.channels, N, OFFSET, rstd.dtype)
    if ACT != "identity":
        b = load_channel(t.bias, tile.channels, N, 0.0, rstd.dtype)
        du = du * derivative(affine(xhat, w, b), ACT, SLOPE)
    return xhat, du, affine(du, w, None)


@triton.jit
def store_dx(t, dx, tile, N):
    if t.dsummed is not None:
        dx = dx + load_tile(t.dsummed, tile, N, dx.dtype)
    store_tile(t.dx, dx, tile, N)


@triton.jit
def add_partial(PARTIAL, total, channels, N, first):
    """Add ``total`` to this program's row of partial sums, or start the row with it."""
    if PARTIAL is not None:
        row = PARTIAL + tl.program_id(0).to(tl.int64) * N + channels
        before = tl.load(row, mask=(channels < N) & (first == 0), other=0.0)
        tl.store(row, before + total, mask=channels < N)
