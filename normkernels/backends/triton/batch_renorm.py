"""Batch renorm: batch norm under an affine that takes it to the running statistics (Ioffe 2017, arXiv:1702.03275)."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import activation
from normkernels.backends.triton.base.launch import accumulator, on_device
from normkernels.backends.triton.base.numbers import cdiv
from normkernels.backends.triton.base.values import number
from normkernels.backends.triton.channels.backward import backward as channels_backward
from normkernels.backends.triton.channels.forward import apply, moments
from normkernels.backends.triton.channels.sizes import FORWARD_LIMIT, holding, resident, sizes
from normkernels.backends.triton.channels.tiles import (
    aligned,
    broad,
    centred,
    held,
    load,
    load_tile,
    preactivation,
    slope_of,
    store,
    store_tile,
    total,
)

BLOCK = 256


@triton.jit
def between(t, low, high):
    # NaN stays NaN
    t = tl.where(t < low, low, t)
    return tl.where(t > high, high, t)


@triton.jit
def correction(mean, var, RUNNING_MEAN, RUNNING_STD, R_MAX, D_MAX, channels, there, EPS):
    # r and d
    r_max, d_max = tl.load(R_MAX), tl.load(D_MAX)
    std = tl.load(RUNNING_STD + channels, mask=there, other=1.0)
    away = mean - tl.load(RUNNING_MEAN + channels, mask=there, other=0.0)
    return between(tl.sqrt(var + number(EPS, var.dtype)) / std, 1 / r_max, r_max), between(away / std, -d_max, d_max)


@triton.jit
def corrected(w, b, r, d):
    # the affine of xhat: w (xhat r + d) + b
    r, d = slope_of(r, w), slope_of(d, w)
    if b is not None:
        d = d + b
    return r, d


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def batch_renorm_forward_kernel(
    X, SKIP, W, B, RUNNING_MEAN, RUNNING_STD, R_MAX, D_MAX, Y, MEAN, VAR, R, D,  # as in the schema
    C, S, G, PLANES, EPS: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    IMAGES: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    channels, there, _, tile = held(C, S, G, PLANES, IMAGES, LAST, ALIGN, BLOCK_A, BLOCK_K, BLOCK_B)
    count = (PLANES * S).to(dtype)
    x, mean = centred(load_tile(X, tile, dtype), tile[2], count)
    var = total(x * x) / count
    r, d = correction(mean, var, RUNNING_MEAN, RUNNING_STD, R_MAX, D_MAX, channels, there, EPS)
    store(MEAN, mean, channels, there)
    store(VAR, var, channels, there)
    store(R, r, channels, there)
    store(D, d, channels, there)
    slope, shift = corrected(load(W, channels, there, dtype), load(B, channels, there, dtype), r, d)
    u = preactivation(
        x, broad(slope * tl.rsqrt(var + number(EPS, dtype)), 3), broad(shift, 3), load_tile(SKIP, tile, dtype)
    )
    store_tile(Y, activation(u, ACT, SLOPE), tile)


@triton.jit(do_not_specialize=["C"])
def batch_renorm_correction_kernel(
    W, B, RUNNING_MEAN, RUNNING_STD, R_MAX, D_MAX, MEAN, VAR, R, D, SCALE, SHIFT, C, EPS: tl.float64,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = MEAN.dtype.element_ty
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    mean = load(MEAN, channels, there, dtype)
    var = load(VAR, channels, there, dtype)
    r, d = correction(mean, var, RUNNING_MEAN, RUNNING_STD, R_MAX, D_MAX, channels, there, EPS)
    store(R, r, channels, there)
    store(D, d, channels, there)
    slope, shift = corrected(load(W, channels, there, dtype), load(B, channels, there, dtype), r, d)
    store(SCALE, slope, channels, there)
    store(SHIFT, shift, channels, there)


@triton.jit(do_not_specialize=["C"])
def batch_renorm_corrected_kernel(W, B, R, D, SCALE, SHIFT, C, BLOCK_N: tl.constexpr):
    dtype: tl.constexpr = R.dtype.element_ty
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    r = load(R, channels, there, dtype)
    d = load(D, channels, there, dtype)
    slope, shift = corrected(load(W, channels, there, dtype), load(B, channels, there, dtype), r, d)
    store(SCALE, slope, channels, there)
    store(SHIFT, shift, channels, there)


@triton.jit(do_not_specialize=["C"])
def batch_renorm_parameters_kernel(OF_SCALE, OF_SHIFT, R, D, DW, DB, C, BLOCK_N: tl.constexpr):
    # of the weight, which is in the scale and in the shift
    dtype: tl.constexpr = R.dtype.element_ty
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    of_shift = load(OF_SHIFT, channels, there, dtype)
    if DW is not None:
        dw = load(OF_SCALE, channels, there, dtype) * load(R, channels, there, dtype)
        store(DW, dw + of_shift * load(D, channels, there, dtype), channels, there)
    store(DB, of_shift, channels, there)


def forward(
    x, skip, weight, bias, running_mean, running_std, r_max, d_max, y, mean, var, r, d, eps, activation, slope, last
):  # fmt: skip
    """Fill y and the tables. A batch that a program holds is read once, a larger one again, from L2 if it fits."""
    z = sizes(x, mean, last)
    known = weight, bias, running_mean, running_std, r_max, d_max
    if tile := resident(z, FORWARD_LIMIT):
        programs, given, constants = holding(x, z, tile)
        batch_renorm_forward_kernel[(programs,)](
            x, skip, *known, y, mean, var, r, d, *given, EPS=eps, ACT=activation, SLOPE=slope, **constants
        )  # fmt: skip
        return
    moments(x, mean, var, last)
    scale, shift = accumulator(mean, z.C), accumulator(mean, z.C)
    batch_renorm_correction_kernel[(cdiv(z.C, BLOCK),)](
        *known, mean, var, r, d, scale, shift, z.C, EPS=eps, BLOCK_N=BLOCK, num_warps=4
    )  # fmt: skip
    apply(x, skip, scale, shift, mean, var, y, eps, activation, slope, last)


def backward(
    dy, x, skip, weight, bias, mean, var, r, d, dx, dskip, dweight, dbias, eps, activation, slope, last
):  # fmt: skip
    """Fill dx, dskip, dweight and dbias: batch norm's under the corrected affine."""
    C = mean.shape[1]
    scale, shift = accumulator(mean, C), accumulator(mean, C)
    wanted = dweight is not None or dbias is not None
    of_scale, of_shift = (accumulator(mean, C), accumulator(mean, C)) if wanted else (None, None)
    programs = (cdiv(C, BLOCK),)
    batch_renorm_corrected_kernel[programs](weight, bias, r, d, scale, shift, C, BLOCK_N=BLOCK, num_warps=4)
    channels_backward(
        dy, x, skip, scale, shift, mean, var, dx, dskip, of_scale, of_shift, eps, True, activation, slope, last
    )
    if wanted:
        batch_renorm_parameters_kernel[programs](
            of_scale, of_shift, r, d, dweight, dbias, C, BLOCK_N=BLOCK, num_warps=4
        )


batch_renorm_fwd = on_device(forward)
batch_renorm_bwd = on_device(backward)
