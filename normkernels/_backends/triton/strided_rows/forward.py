"""Strided rows, forward: y = act((s - mean) rstd (w + offset) + b), s = x + residual, over the channels of a pixel."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.activations import activation
from normkernels._backends.triton.base.launch import alignment
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.values import affine, number, rounded
from normkernels._backends.triton.rows.forward import Forward
from normkernels._backends.triton.strided_rows.sizes import forward_tile
from normkernels._backends.triton.strided_rows.tiles import (
    Tile,
    centre,
    load_channel,
    load_sum,
    load_tile,
    locate,
    store_tile,
)


@triton.jit
def strided_rows_forward_kernel(
    t, N, S, EPS: tl.float64, OFFSET: tl.float64, SLOPE: tl.float64,  # t: (B, N, S), (N,) and (B, S)
    ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    image, pixels, S, start = locate(tl.program_id(0), N, S, ALIGN, BLOCK_N)
    tile = Tile(start, tl.arange(0, BLOCK_M), pixels, S)
    x = load_sum(t, tile, N, t.rstd.dtype.element_ty)
    x, mean, rest, squares = centre(x, tile.channels, N, N)
    # rstd = (mean((x - mean)^2) + eps)^(-1/2)
    rstd = tl.rsqrt(squares / N + number(EPS, squares.dtype))
    tl.store(t.mean + image * S + pixels, mean + rest, mask=pixels < S)
    tl.store(t.rstd + image * S + pixels, rstd, mask=pixels < S)
    store_y(t, x, rstd, tile, N, OFFSET, SLOPE, ACT)


@triton.jit
def store_y(t, x, rstd, tile, N, OFFSET, SLOPE, ACT: tl.constexpr):
    w = load_channel(t.weight, tile.channels, N, OFFSET, rstd.dtype)
    b = load_channel(t.bias, tile.channels, N, 0.0, rstd.dtype)
    store_tile(t.y, activation(affine(x * rstd[None, :], w, b), ACT, SLOPE), tile, N)


@triton.jit
def strided_rows_loop_forward_kernel(
    t, N, S, EPS: tl.float64, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = t.rstd.dtype.element_ty
    image, pixels, S, start = locate(tl.program_id(0), N, S, ALIGN, BLOCK_N)
    mean, rest, squares = tl.zeros([BLOCK_N], dtype), tl.zeros([BLOCK_N], dtype), tl.zeros([BLOCK_N], dtype)
    for low in range(0, N, BLOCK_M):
        tile = Tile(start, low + tl.arange(0, BLOCK_M), pixels, S)
        count = tl.minimum(N - low, BLOCK_M)
        x = load_sum(t, tile, N, dtype)
        _, mean_here, rest_here, squares_here = centre(x, tile.channels, N, count)
        # Chan: the mean moves by distance * count / (low + count), the squares grow by distance^2 * low * that share
        distance = mean_here - mean + (rest_here - rest)
        move = distance * count / (low + count)
        squares += squares_here + distance * move * low
        moved = mean + (move + rest)
        rest = (mean - moved) + (move + rest)
        mean = moved
    rstd = tl.rsqrt(squares / N + number(EPS, squares.dtype))
    tl.store(t.mean + image * S + pixels, mean + rest, mask=pixels < S)
    tl.store(t.rstd + image * S + pixels, rstd, mask=pixels < S)
    for low in range(0, N, BLOCK_M):
        tile = Tile(start, low + tl.arange(0, BLOCK_M), pixels, S)
        x = load_tile(t.x, tile, N, dtype)
        if t.residual is not None:
            x = rounded(x + load_tile(t.residual, tile, N, dtype), t.x.dtype.element_ty).to(dtype)
        store_y(t, x - mean[None, :] - rest[None, :], rstd, tile, N, OFFSET, SLOPE, ACT)


def forward(a) -> None:
    """Fill y, summed, mean and rstd. Pixels whose channels fit a tile are read once, others twice."""
    B, N, S = a.x.shape
    tile = forward_tile(N, S, a.x.element_size())
    kernel = strided_rows_forward_kernel if tile.BLOCK_M >= N else strided_rows_loop_forward_kernel
    kernel[(B * cdiv(S, tile.BLOCK_N),)](
        Forward(a.x, a.residual, a.weight, a.bias, None, a.y, a.summed, a.mean, a.rstd), N, S,
        EPS=a.eps, OFFSET=a.weight_offset, SLOPE=a.slope, ACT=a.activation, ALIGN=alignment(a.x, S), **tile._asdict(),
    )  # fmt: skip
