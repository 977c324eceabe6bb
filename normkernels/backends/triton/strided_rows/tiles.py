"""Pixels: what the kernels over the channels of each pixel share on a loaded tile, and their launch sizes."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import derivative
from normkernels.backends.triton.base.values import affine, number, rounded


@triton.jit
def locate(block, N, S, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr):
    # the image and the pixels of a block, S with its alignment, and where the image starts
    S = S // ALIGN * ALIGN
    image = block // tl.cdiv(S, BLOCK_N) + tl.zeros([1], tl.int64)
    pixels = block % tl.cdiv(S, BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    return image, pixels, S, (image * N * S)[:, None]


@triton.jit
def load_tile(P, start, channels, pixels, N, S, dtype: tl.constexpr):
    mask = (channels[:, None] < N) & (pixels[None, :] < S)
    at = start + channels[:, None].to(tl.int64) * S + pixels[None, :]
    return tl.load(P + at, mask=mask, other=0.0).to(dtype)


@triton.jit
def store_tile(P, value, start, channels, pixels, N, S):
    mask = (channels[:, None] < N) & (pixels[None, :] < S)
    at = start + channels[:, None].to(tl.int64) * S + pixels[None, :]
    tl.store(P + at, rounded(value, P.dtype.element_ty), mask=mask)


@triton.jit
def load_channel(P, channels, N, OFFSET, dtype: tl.constexpr):
    # p + offset as (BLOCK_M, 1), or None
    if P is not None:
        return (tl.load(P + channels, mask=channels < N, other=0.0).to(dtype) + number(OFFSET, dtype))[:, None]


@triton.jit
def load_sum(X, RESIDUAL, SUMMED, start, channels, pixels, N, S, dtype: tl.constexpr):
    # s = x + residual, as rounded in memory
    s = load_tile(X, start, channels, pixels, N, S, dtype)
    if RESIDUAL is not None:
        s = rounded(s + load_tile(RESIDUAL, start, channels, pixels, N, S, dtype), X.dtype.element_ty)
        store_tile(SUMMED, s, start, channels, pixels, N, S)
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
def grads(
    DY, X, W, B, mean, rstd, start, channels, pixels, N, S,
    OFFSET, ACT: tl.constexpr, SLOPE,
):  # fmt: skip
    # xhat, du = dy act'(u), g = du (w + offset); du and g are 0 outside the tensor, for dy is
    xhat = (load_tile(X, start, channels, pixels, N, S, rstd.dtype) - mean[None, :]) * rstd[None, :]
    du = load_tile(DY, start, channels, pixels, N, S, rstd.dtype)
    w = load_channel(W, channels, N, OFFSET, rstd.dtype)
    if ACT != "identity":
        du = du * derivative(affine(xhat, w, load_channel(B, channels, N, 0.0, rstd.dtype)), ACT, SLOPE)
    return xhat, du, affine(du, w, None)


@triton.jit
def store_dx(DX, dx, DSUMMED, start, channels, pixels, N, S):
    if DSUMMED is not None:
        dx = dx + load_tile(DSUMMED, start, channels, pixels, N, S, dx.dtype)
    store_tile(DX, dx, start, channels, pixels, N, S)


@triton.jit
def add_partial(PARTIAL, total, channels, N, first):
    """Add ``total`` to this program's row of partial sums, or start the row with it."""
    if PARTIAL is not None:
        row = PARTIAL + tl.program_id(0).to(tl.int64) * N + channels
        before = tl.load(row, mask=(channels < N) & (first == 0), other=0.0)
        tl.store(row, before + total, mask=channels < N)
