"""NormProp: what follows the product, y = act(u + bias) scale + shift (Arpit et al. 2016, arXiv:1603.01431).

u is (N, C, S), or (N, S, C) where the channels lie LAST. PReLU has a slope for each channel, and then so are the scale
and the shift, which follow from it.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from normkernels.backends.triton.base.activations import (
    DENSITY_0,
    SELU_ALPHA,
    SELU_SCALE,
    activation,
    derivative,
    expm1,
)
from normkernels.backends.triton.base.launch import alignment, on_device, stride
from normkernels.backends.triton.base.numbers import cdiv
from normkernels.backends.triton.base.sums import finalise
from normkernels.backends.triton.base.values import affine
from normkernels.backends.triton.channels.sizes import BACKWARD_TILE, FORWARD_TILE, STEPS, Sizes, parts, split
from normkernels.backends.triton.channels.tiles import aligned, broad, load, load_tile, step, store, store_tile, walk

INVERSE_PI = tl.constexpr(1 / math.pi)


@triton.jit
def prelu(u, a):
    return tl.where(u > 0, u, a * u)


@triton.jit
def prelu_affine(a):
    # scale = 1 / c1 and shift = -c2 / c1
    variance = ((1 + a * a) - (1 - a) * (1 - a) * INVERSE_PI) / 2
    scale = tl.rsqrt(variance)
    return scale, -(1 - a) * DENSITY_0 * scale


@triton.jit
def bounds(LOW: tl.constexpr, HIGH: tl.constexpr, dtype: tl.constexpr):
    # as tensors, for Triton compares with the float32 that is nearest to a number
    return tl.full([1, 1], LOW, dtype), tl.full([1, 1], HIGH, dtype)


@triton.jit
def derivative_from_output(
    y, ACT: tl.constexpr, LEAK: tl.constexpr, SCALE: tl.constexpr, SHIFT: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr,
):  # fmt: skip
    """act'(u) from y = act(u) scale + shift, within [LOW, HIGH] where act(u) lies between the kinks of act."""
    f = (y - SHIFT) / SCALE
    if ACT == "tanh":
        d = 1 - f * f
    elif ACT == "sigmoid":
        d = f * (1 - f)
    elif ACT == "elu":
        d = tl.where(f > 0, 1.0, f + 1)
    elif ACT == "selu":
        d = tl.where(f > 0, SELU_SCALE, f + SELU_SCALE * SELU_ALPHA)
    elif ACT == "softplus":
        d = -expm1(tl.where(f < 0, 0.0, -f))
    elif ACT == "softsign":
        d = 1 - tl.abs(f)
    else:
        INNER: tl.constexpr = 1 / 6 if ACT == "hardsigmoid" else 1.0
        OUTER: tl.constexpr = LEAK if ACT == "leaky_relu" else 0.0
        bottom, top = bounds(LOW, HIGH, y.dtype)
        d = tl.where((y >= bottom) & (y <= top), INNER, tl.full(y.shape, OUTER, y.dtype))
    # rounding may have taken f out of the range of act
    d = tl.where(d < 0, 0.0, d)
    if ACT == "softsign":
        d = d * d
    return d


@triton.jit(do_not_specialize=["N", "C", "S", "parts", "steps", "stride_slope"])
def normprop_forward_kernel(
    U, B, PRELU, Y,  # b, prelu: (C,)
    N, C, S, parts, steps, stride_slope, ACT: tl.constexpr, LEAK: tl.constexpr,
    SCALE: tl.constexpr, SHIFT: tl.constexpr, KINK_LOW: tl.constexpr, KINK_HIGH: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr,
    IMAGES: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if U.dtype.element_ty == tl.float64 else tl.float32
    C, S = aligned(C, S, LAST, ALIGN)
    low, _, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, IMAGES, BLOCK_A, BLOCK_B)
    channels = low + tl.arange(0, BLOCK_A)
    b = broad(load(B, channels, channels < C, dtype), 2)
    if PRELU is not None:
        a = broad(load(PRELU, channels * stride_slope, channels < C, dtype), 2)
        scale, shift = prelu_affine(a)
    bottom, top = bounds(LOW, HIGH, dtype)
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        u = affine(load_tile(U, tile, dtype), None, b)
        if PRELU is not None:
            y = prelu(u, a) * scale + shift
        else:
            f = activation(u, ACT, LEAK)
            y = f * SCALE + SHIFT
            # on the side of a kink that f is on, for the backward sees y alone
            within = tl.where(y < bottom, bottom, tl.where(y > top, top, y))
            y = tl.where((f > KINK_LOW) & (f < KINK_HIGH), within, y)
        store_tile(Y, y, tile)


@triton.jit(do_not_specialize=["N", "C", "S", "parts", "steps", "stride_slope"])
def normprop_backward_kernel(
    DY, SAVED, B, PRELU, DU, PARTIAL_B, PARTIAL_S,  # saved: y FROM_OUTPUT, else u; partials: (rows, C)
    N, C, S, parts, steps, stride_slope, ACT: tl.constexpr, LEAK: tl.constexpr,
    SCALE: tl.constexpr, SHIFT: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, FROM_OUTPUT: tl.constexpr,
    IMAGES: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if DU.dtype.element_ty == tl.float64 else tl.float32
    C, S = aligned(C, S, LAST, ALIGN)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, IMAGES, BLOCK_A, BLOCK_B)
    channels = low + tl.arange(0, BLOCK_A)
    b = broad(load(None if FROM_OUTPUT else B, channels, channels < C, dtype), 2)
    if PRELU is not None:
        a = broad(load(PRELU, channels * stride_slope, channels < C, dtype), 2)
        scale, shift = prelu_affine(a)
        c1_slope = (a + (1 - a) * INVERSE_PI) / 2 * scale
    db, ds = tl.zeros([BLOCK_A, BLOCK_B], dtype), tl.zeros([BLOCK_A, BLOCK_B], dtype)
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        # du is 0 outside the tensor, for dy is
        du = load_tile(DY, tile, dtype)
        saved = affine(load_tile(SAVED, tile, dtype), None, b)
        if PRELU is not None:
            du = du * scale
            # of y = (f - c2) / c1 over the slope a, times c1: the slopes of f and c2, and y times that of c1
            y = prelu(saved, a) * scale + shift
            ds += du * (tl.where(saved > 0, 0.0, saved) + DENSITY_0 - y * c1_slope)
            du = du * tl.where(saved > 0, 1.0, a)
        elif FROM_OUTPUT:
            du = du * (derivative_from_output(saved, ACT, LEAK, SCALE, SHIFT, LOW, HIGH) * SCALE)
        else:
            du = du * (derivative(saved, ACT, LEAK) * SCALE)
        store_tile(DU, du, tile)
        db += du
    store(PARTIAL_B, tl.sum(db, axis=1), row * C + channels, channels < C)
    store(PARTIAL_S, tl.sum(ds, axis=1), row * C + channels, channels < C)


def walking(u: Tensor, last: bool, tile: dict[int, tuple[int, int]], most: int | None = None):
    """Rows of partial sums, programs, runtime arguments and constants of a kernel that walks u."""
    N, C, S = (u.shape[0], u.shape[2], u.shape[1]) if last else u.shape
    z = Sizes(N, C, S, 1, C, last, u.element_size())
    s = split(z, tile, most)
    each, rows = parts(z, s)
    constants = {"IMAGES": s.IMAGES, "LAST": last, "ALIGN": alignment(u, z.row)} | s.tile()
    return rows, (rows * cdiv(C, s.BLOCK_A),), (N, C, S, each, s.steps), constants


def forward(u, bias, slope, y, activation, leak, scale, shift, kink_low, kink_high, low, high, channels_last):
    """Fill y, which may be u."""
    _, programs, given, constants = walking(u, channels_last, FORWARD_TILE, STEPS)
    normprop_forward_kernel[programs](
        u, bias, slope, y, *given, stride(slope), ACT=activation, LEAK=leak, SCALE=scale, SHIFT=shift,
        KINK_LOW=kink_low, KINK_HIGH=kink_high, LOW=low, HIGH=high, **constants,
    )  # fmt: skip


def backward(
    dy, saved, bias, slope, du, dbias, dslope, activation, leak, scale, shift, low, high, from_output, channels_last
):  # fmt: skip
    """Fill du, dbias and dslope, in one pass."""
    rows, programs, given, constants = walking(du, channels_last, BACKWARD_TILE)
    shape, dtype = (rows, given[1]), torch.float64 if du.dtype == torch.float64 else torch.float32
    # workspaces
    partial_b, partial_s = (None if p is None else p.new_empty(shape, dtype=dtype) for p in (dbias, dslope))
    normprop_backward_kernel[programs](
        dy, saved, bias, slope, du, partial_b, partial_s, *given, stride(slope), ACT=activation, LEAK=leak,
        SCALE=scale, SHIFT=shift, LOW=low, HIGH=high, FROM_OUTPUT=from_output, **constants,
    )  # fmt: skip
    finalise(partial_s, partial_b, dslope, dbias)


normprop_fwd = on_device(forward)
normprop_bwd = on_device(backward)
