"""Batch renorm: batch norm under an affine that takes it to the running statistics (Ioffe 2017, arXiv:1702.03275)."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.activations import activation
from normkernels._backends.triton.base.launch import accumulator, on_device
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.values import number
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.forward import apply, moments
from normkernels._backends.triton.channels.merged_backward import backward
from normkernels._backends.triton.channels.tensors import Forward as Applied
from normkernels._backends.triton.channels.tiles import (
    aligned,
    broad,
    held,
    load,
    load_tile,
    moments_of,
    preactivation,
    slope_of,
    store,
    store_tile,
)

BLOCK = 256


class Forward(NamedTuple):
    """As in the schema."""

    x: Tensor | None
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_std: Tensor
    r_max: Tensor
    d_max: Tensor
    y: Tensor | None
    mean: Tensor
    var: Tensor
    r: Tensor
    d: Tensor


@triton.jit
def between(t, low, high):
    # NaN stays NaN
    t = tl.where(t < low, low, t)
    return tl.where(t > high, high, t)


@triton.jit
def correction(t, mean, var, channels, there, EPS):
    # r and d
    r_max, d_max = tl.load(t.r_max), tl.load(t.d_max)
    std = tl.load(t.running_std + channels, mask=there, other=1.0)
    away = mean - tl.load(t.running_mean + channels, mask=there, other=0.0)
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
    t, C, S, G, PLANES, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    C, S = aligned(C, S, FORM)
    channels, there, _, tile = held(C, S, G, PLANES, FORM)
    count = (PLANES * S).to(dtype)
    x, mean, var = moments_of(load_tile(t.x, tile, dtype), tile.mask, count)
    r, d = correction(t, mean, var, channels, there, EPS)
    store(t.mean, mean, channels, there)
    store(t.var, var, channels, there)
    store(t.r, r, channels, there)
    store(t.d, d, channels, there)
    slope, shift = corrected(load(t.weight, channels, there, dtype), load(t.bias, channels, there, dtype), r, d)
    slope = broad(slope * tl.rsqrt(var + number(EPS, dtype)), 3)
    u = preactivation(x, slope, broad(shift, 3), load_tile(t.skip, tile, dtype))
    store_tile(t.y, activation(u, ACT, SLOPE), tile)


@triton.jit(do_not_specialize=["C"])
def batch_renorm_correction_kernel(t, SCALE, SHIFT, C, EPS: tl.float64, BLOCK_N: tl.constexpr):
    dtype: tl.constexpr = t.mean.dtype.element_ty
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    mean = load(t.mean, channels, there, dtype)
    var = load(t.var, channels, there, dtype)
    r, d = correction(t, mean, var, channels, there, EPS)
    store(t.r, r, channels, there)
    store(t.d, d, channels, there)
    slope, shift = corrected(load(t.weight, channels, there, dtype), load(t.bias, channels, there, dtype), r, d)
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


@on_device
def batch_renorm_fwd(a):
    """Fill y and the tables. A batch that a program holds is read once, a larger one again, from L2 if it fits."""
    z = sizes.of(a.x, a.mean, a.channels_last)
    t = Forward(
        a.x, a.skip, a.weight, a.bias, a.running_mean, a.running_std, a.r_max, a.d_max, a.y, a.mean, a.var, a.r, a.d
    )
    if tile := sizes.resident(z, sizes.FORWARD_LIMIT):
        programs, given, constants = sizes.holding(a.x, z, tile)
        batch_renorm_forward_kernel[(programs,)](t, *given, EPS=a.eps, SLOPE=a.slope, ACT=a.activation, **constants)
        return
    moments(a.x, a.mean, a.var, a.channels_last)
    scale, shift = accumulator(a.mean, z.C), accumulator(a.mean, z.C)
    known = t._replace(x=None, skip=None, y=None)
    batch_renorm_correction_kernel[(cdiv(z.C, BLOCK),)](known, scale, shift, z.C, EPS=a.eps, BLOCK_N=BLOCK, num_warps=4)
    apply(Applied(a.x, a.skip, scale, shift, a.y, a.mean, a.var), a)


@on_device
def batch_renorm_bwd(a):
    """Fill dx, dskip, dweight and dbias: batch norm's under the corrected affine."""
    C = a.mean.shape[1]
    scale, shift = accumulator(a.mean, C), accumulator(a.mean, C)
    wanted = a.dweight is not None or a.dbias is not None
    of_scale, of_shift = (accumulator(a.mean, C), accumulator(a.mean, C)) if wanted else (None, None)
    programs = (cdiv(C, BLOCK),)
    batch_renorm_corrected_kernel[programs](a.weight, a.bias, a.r, a.d, scale, shift, C, BLOCK_N=BLOCK, num_warps=4)
    backward(a._replace(weight=scale, bias=shift, dweight=of_scale, dbias=of_shift), training=True)
    if wanted:
        batch_renorm_parameters_kernel[programs](
            of_scale, of_shift, a.r, a.d, a.dweight, a.dbias, C, BLOCK_N=BLOCK, num_warps=4
        )
