"""Layer norm over the channels of each pixel: x is (B, N, S), a pixel's N channels lie S apart (arXiv:2201.03545)."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import activation
from normkernels.backends.triton.base.launch import accumulator, alignment, on_device, programs
from normkernels.backends.triton.base.numbers import cdiv
from normkernels.backends.triton.base.sums import finalise
from normkernels.backends.triton.base.values import affine, number, rounded
from normkernels.backends.triton.strided_rows.sizes import backward_tile, forward_tile
from normkernels.backends.triton.strided_rows.tiles import (
    add_partial,
    centre,
    grads,
    load_channel,
    load_sum,
    load_tile,
    locate,
    store_dx,
    store_tile,
)


@triton.jit
def strided_rows_forward_kernel(
    X, RESIDUAL, W, B, Y, SUMMED, MEAN, RSTD,  # x, residual, y, summed: (B, N, S); w, b: (N,); mean, rstd: (B, S)
    N, S, EPS: tl.float64, OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    image, pixels, S, start = locate(tl.program_id(0), N, S, ALIGN, BLOCK_N)
    channels = tl.arange(0, BLOCK_M)
    x = load_sum(X, RESIDUAL, SUMMED, start, channels, pixels, N, S, RSTD.dtype.element_ty)
    x, mean, rest, squares = centre(x, channels, N, N)
    # rstd = (mean((x - mean)^2) + eps)^(-1/2)
    rstd = tl.rsqrt(squares / N + number(EPS, squares.dtype))
    tl.store(MEAN + image * S + pixels, mean + rest, mask=pixels < S)
    tl.store(RSTD + image * S + pixels, rstd, mask=pixels < S)
    w = load_channel(W, channels, N, OFFSET, rstd.dtype)
    b = load_channel(B, channels, N, 0.0, rstd.dtype)
    y = activation(affine(x * rstd[None, :], w, b), ACT, SLOPE)
    store_tile(Y, y, start, channels, pixels, N, S)


@triton.jit
def strided_rows_loop_forward_kernel(
    X, RESIDUAL, W, B, Y, SUMMED, MEAN, RSTD,  # as above
    N, S, EPS: tl.float64, OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = RSTD.dtype.element_ty
    image, pixels, S, start = locate(tl.program_id(0), N, S, ALIGN, BLOCK_N)
    mean, rest, squares = tl.zeros([BLOCK_N], dtype), tl.zeros([BLOCK_N], dtype), tl.zeros([BLOCK_N], dtype)
    for low in range(0, N, BLOCK_M):
        channels = low + tl.arange(0, BLOCK_M)
        count = tl.minimum(N - low, BLOCK_M)
        x = load_sum(X, RESIDUAL, SUMMED, start, channels, pixels, N, S, dtype)
        _, mean_here, rest_here, squares_here = centre(x, channels, N, count)
        # Chan: the mean moves by distance * count / (low + count), the squares grow by distance^2 * low * that share
        distance = mean_here - mean + (rest_here - rest)
        move = distance * count / (low + count)
        squares += squares_here + distance * move * low
        moved = mean + (move + rest)
        rest = (mean - moved) + (move + rest)
        mean = moved
    rstd = tl.rsqrt(squares / N + number(EPS, squares.dtype))
    tl.store(MEAN + image * S + pixels, mean + rest, mask=pixels < S)
    tl.store(RSTD + image * S + pixels, rstd, mask=pixels < S)
    for low in range(0, N, BLOCK_M):
        channels = low + tl.arange(0, BLOCK_M)
        x = load_tile(X, start, channels, pixels, N, S, dtype)
        if RESIDUAL is not None:
            x = rounded(x + load_tile(RESIDUAL, start, channels, pixels, N, S, dtype), X.dtype.element_ty).to(dtype)
        xhat = (x - mean[None, :] - rest[None, :]) * rstd[None, :]
        w = load_channel(W, channels, N, OFFSET, dtype)
        b = load_channel(B, channels, N, 0.0, dtype)
        y = activation(affine(xhat, w, b), ACT, SLOPE)
        store_tile(Y, y, start, channels, pixels, N, S)


@triton.jit(do_not_specialize=["blocks"])
def strided_rows_backward_kernel(
    DY, DSUMMED, X, W, B, MEAN, RSTD, DX, PARTIAL_W, PARTIAL_B,  # as in the schema; partials: (programs, N)
    blocks, N, S, OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    channels = tl.arange(0, BLOCK_M)
    dw = tl.zeros([BLOCK_M], RSTD.dtype.element_ty)
    db = tl.zeros([BLOCK_M], RSTD.dtype.element_ty)
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0)):
        image, pixels, S_, start = locate(block, N, S, ALIGN, BLOCK_N)
        mean = tl.load(MEAN + image * S_ + pixels, mask=pixels < S_, other=0.0)
        rstd = tl.load(RSTD + image * S_ + pixels, mask=pixels < S_, other=0.0)
        xhat, du, g = grads(DY, X, W, B, mean, rstd, start, channels, pixels, N, S_, OFFSET, ACT, SLOPE)
        # dx = rstd (g - mean(g) - xhat mean(g xhat))
        dx = g - tl.sum(g, axis=0)[None, :] / N - xhat * (tl.sum(g * xhat, axis=0)[None, :] / N)
        store_dx(DX, dx * rstd[None, :], DSUMMED, start, channels, pixels, N, S_)
        dw += tl.sum(du * xhat, axis=1)
        db += tl.sum(du, axis=1)
    add_partial(PARTIAL_W, dw, channels, N, True)
    add_partial(PARTIAL_B, db, channels, N, True)


@triton.jit(do_not_specialize=["blocks"])
def strided_rows_loop_backward_kernel(
    DY, DSUMMED, X, W, B, MEAN, RSTD, DX, PARTIAL_W, PARTIAL_B,  # as above
    blocks, N, S, OFFSET: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0)):
        image, pixels, S_, start = locate(block, N, S, ALIGN, BLOCK_N)
        mean = tl.load(MEAN + image * S_ + pixels, mask=pixels < S_, other=0.0)
        rstd = tl.load(RSTD + image * S_ + pixels, mask=pixels < S_, other=0.0)
        sum_g, sum_gx = tl.zeros([BLOCK_N], rstd.dtype), tl.zeros([BLOCK_N], rstd.dtype)
        for low in range(0, N, BLOCK_M):
            channels = low + tl.arange(0, BLOCK_M)
            xhat, _, g = grads(DY, X, W, B, mean, rstd, start, channels, pixels, N, S_, OFFSET, ACT, SLOPE)
            sum_g += tl.sum(g, axis=0)
            sum_gx += tl.sum(g * xhat, axis=0)
        for low in range(0, N, BLOCK_M):
            channels = low + tl.arange(0, BLOCK_M)
            xhat, du, g = grads(DY, X, W, B, mean, rstd, start, channels, pixels, N, S_, OFFSET, ACT, SLOPE)
            dx = (g - sum_g[None, :] / N - xhat * (sum_gx[None, :] / N)) * rstd[None, :]
            store_dx(DX, dx, DSUMMED, start, channels, pixels, N, S_)
            add_partial(PARTIAL_W, tl.sum(du * xhat, axis=1), channels, N, block == tl.program_id(0))
            add_partial(PARTIAL_B, tl.sum(du, axis=1), channels, N, block == tl.program_id(0))
        tl.debug_barrier()  # the partial rows are written before this program reads them again


@on_device
def layer_norm_2d_fwd(x, residual, weight, bias, y, summed, mean, rstd, eps, weight_offset, activation, slope):
    """y = act((s - mean) rstd (w + offset) + b), s = x + residual."""
    B, N, S = x.shape
    tile = forward_tile(N, S, x.element_size())
    kernel = strided_rows_forward_kernel if tile.BLOCK_M >= N else strided_rows_loop_forward_kernel
    kernel[(B * cdiv(S, tile.BLOCK_N),)](
        x, residual, weight, bias, y, summed, mean, rstd, N, S,
        EPS=eps, OFFSET=weight_offset, ACT=activation, SLOPE=slope, ALIGN=alignment(x, S), **tile._asdict(),
    )  # fmt: skip


@on_device
def layer_norm_2d_bwd(
    dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias, weight_offset, activation, slope
):  # fmt: skip
    """dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsummed, g = dy act'(u) (w + offset)."""
    B, N, S = x.shape
    tile = backward_tile(N, S, x.element_size())
    kernel = strided_rows_backward_kernel if tile.BLOCK_M >= N else strided_rows_loop_backward_kernel
    blocks = B * cdiv(S, tile.BLOCK_N)
    P = programs(x, blocks, tile.num_warps)
    partial_w = None if dweight is None else accumulator(rstd, P, N)
    partial_b = None if dbias is None else accumulator(rstd, P, N)
    kernel[(P,)](
        dy, dsummed, x, weight, bias, mean, rstd, dx, partial_w, partial_b, blocks, N, S,
        OFFSET=weight_offset, ACT=activation, SLOPE=slope, ALIGN=alignment(x, S), **tile._asdict(),
    )  # fmt: skip
    finalise(partial_w, partial_b, dweight, dbias)
