"""Strided rows, backward: dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsummed, g = dy act'(u) (w + offset)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator, alignment, programs
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.rows.backward import Backward
from normkernels._backends.triton.strided_rows.sizes import backward_tile
from normkernels._backends.triton.strided_rows.tiles import Tile, add_partial, grads, locate, store_dx


@triton.jit(do_not_specialize=["blocks"])
def strided_rows_backward_kernel(
    t, blocks, N, S, OFFSET: tl.float64, SLOPE: tl.float64,  # t: (B, N, S), (N,), (B, S), and partials (programs, N)
    ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    channels = tl.arange(0, BLOCK_M)
    dw = tl.zeros([BLOCK_M], t.rstd.dtype.element_ty)
    db = tl.zeros([BLOCK_M], t.rstd.dtype.element_ty)
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0)):
        image, pixels, S_, start = locate(block, N, S, ALIGN, BLOCK_N)
        tile = Tile(start, channels, pixels, S_)
        mean = tl.load(t.mean + image * S_ + pixels, mask=pixels < S_, other=0.0)
        rstd = tl.load(t.rstd + image * S_ + pixels, mask=pixels < S_, other=0.0)
        xhat, du, g = grads(t, mean, rstd, tile, N, OFFSET, SLOPE, ACT)
        # dx = rstd (g - mean(g) - xhat mean(g xhat))
        dx = g - tl.sum(g, axis=0)[None, :] / N - xhat * (tl.sum(g * xhat, axis=0)[None, :] / N)
        store_dx(t, dx * rstd[None, :], tile, N)
        dw += tl.sum(du * xhat, axis=1)
        db += tl.sum(du, axis=1)
    add_partial(t.partial_w, dw, channels, N, True)
    add_partial(t.partial_b, db, channels, N, True)


@triton.jit(do_not_specialize=["blocks"])
def strided_rows_loop_backward_kernel(
    t, blocks, N, S, OFFSET: tl.float64, SLOPE: tl.float64,
    ACT: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0)):
        image, pixels, S_, start = locate(block, N, S, ALIGN, BLOCK_N)
        mean = tl.load(t.mean + image * S_ + pixels, mask=pixels < S_, other=0.0)
        rstd = tl.load(t.rstd + image * S_ + pixels, mask=pixels < S_, other=0.0)
        sum_g, sum_gx = tl.zeros([BLOCK_N], rstd.dtype), tl.zeros([BLOCK_N], rstd.dtype)
        for low in range(0, N, BLOCK_M):
            tile = Tile(start, low + tl.arange(0, BLOCK_M), pixels, S_)
            xhat, _, g = grads(t, mean, rstd, tile, N, OFFSET, SLOPE, ACT)
            sum_g += tl.sum(g, axis=0)
            sum_gx += tl.sum(g * xhat, axis=0)
        for low in range(0, N, BLOCK_M):
            tile = Tile(start, low + tl.arange(0, BLOCK_M), pixels, S_)
            xhat, du, g = grads(t, mean, rstd, tile, N, OFFSET, SLOPE, ACT)
            dx = (g - sum_g[None, :] / N - xhat * (sum_gx[None, :] / N)) * rstd[None, :]
            store_dx(t, dx, tile, N)
            add_partial(t.partial_w, tl.sum(du * xhat, axis=1), tile.channels, N, block == tl.program_id(0))
            add_partial(t.partial_b, tl.sum(du, axis=1), tile.channels, N, block == tl.program_id(0))
        tl.debug_barrier()  # the partial rows are written before this program reads them again


def backward(a) -> None:
    """Fill dx, dweight and dbias. Pixels whose channels fit a tile are read once, others twice."""
    B, N, S = a.x.shape
    tile = backward_tile(N, S, a.x.element_size())
    kernel = strided_rows_backward_kernel if tile.BLOCK_M >= N else strided_rows_loop_backward_kernel
    blocks = B * cdiv(S, tile.BLOCK_N)
    P = programs(a.x, blocks, tile.num_warps)
    partial_w = None if a.dweight is None else accumulator(a.rstd, P, N)
    partial_b = None if a.dbias is None else accumulator(a.rstd, P, N)
    t = Backward(a.dy, a.dsummed, a.x, a.weight, a.bias, None, a.mean, a.rstd, a.dx, None, partial_w, partial_b)
    kernel[(P,)](
        t, blocks, N, S,
        OFFSET=a.weight_offset, SLOPE=a.slope, ACT=a.activation, ALIGN=alignment(a.x, S), **tile._asdict(),
    )  # fmt: skip
    finalise(partial_w, partial_b, a.dweight, a.dbias)
