"""NormProp: what follows the product, y = act(u + bias) scale + shift (Arpit et al. 2016, arXiv:1603.01431).

u is (N, C, S), or (N, S, C) where the channels lie LAST. PReLU has a slope for each channel, and then so are the scale
and the shift, which follow from it.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.activations import (
    DENSITY_0,
    SELU_ALPHA,
    SELU_SCALE,
    activation,
    derivative,
    expm1,
)
from normkernels._backends.triton.base.launch import on_device, stride
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.tiles import aligned, broad, load, load_tile, store, store_tile, zeros
from normkernels._backends.triton.channels.walks import step, walk

INVERSE_PI = tl.constexpr(1 / math.pi)


class Epilogue(NamedTuple):
    """The constants of y = act(u) SCALE + SHIFT, within [LOW, HIGH] where act(u) lies between the kinks of act."""

    ACT: str
    LEAK: float
    SCALE: float
    SHIFT: float
    LOW: float
    HIGH: float
    KINK_LOW: float = -math.inf
    KINK_HIGH: float = math.inf


class Backward(NamedTuple):
    """saved: y FROM_OUTPUT, else u; bias, prelu: (C,); partials: (rows, C)."""

    dy: Tensor
    saved: Tensor
    bias: Tensor | None
    prelu: Tensor | None
    du: Tensor
    partial_b: Tensor | None
    partial_s: Tensor | None


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
def derivative_from_output(y, EPILOGUE: tl.constexpr):
    """act'(u) from y."""
    ACT: tl.constexpr = EPILOGUE.ACT
    f = (y - EPILOGUE.SHIFT) / EPILOGUE.SCALE
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
        OUTER: tl.constexpr = EPILOGUE.LEAK if ACT == "leaky_relu" else 0.0
        bottom, top = bounds(EPILOGUE.LOW, EPILOGUE.HIGH, y.dtype)
        d = tl.where((y >= bottom) & (y <= top), INNER, tl.full(y.shape, OUTER, y.dtype))
    # rounding may have taken f out of the range of act
    d = tl.where(d < 0, 0.0, d)
    if ACT == "softsign":
        d = d * d
    return d


@triton.jit(do_not_specialize=["N", "C", "S", "parts", "steps", "stride_slope"])
def normprop_forward_kernel(
    U, B, PRELU, Y, N, C, S, parts, steps, stride_slope, EPILOGUE: tl.constexpr, FORM: tl.constexpr  # b, prelu: (C,)
):  # fmt: skip
    ACT: tl.constexpr = EPILOGUE.ACT
    STAGES: tl.constexpr = FORM.STAGES
    dtype: tl.constexpr = tl.float64 if U.dtype.element_ty == tl.float64 else tl.float32
    C, S = aligned(C, S, FORM)
    low, _, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, FORM)
    channels = low + tl.arange(0, FORM.BLOCK_A)
    b = broad(load(B, channels, channels < C, dtype), 2)
    if PRELU is not None:
        a = broad(load(PRELU, channels * stride_slope, channels < C, dtype), 2)
        scale, shift = prelu_affine(a)
    bottom, top = bounds(EPILOGUE.LOW, EPILOGUE.HIGH, dtype)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        u = affine(load_tile(U, tile, dtype), None, b)
        if PRELU is not None:
            y = prelu(u, a) * scale + shift
        else:
            f = activation(u, ACT, EPILOGUE.LEAK)
            y = f * EPILOGUE.SCALE + EPILOGUE.SHIFT
            # on the side of a kink that f is on, for the backward sees y alone
            within = tl.where(y < bottom, bottom, tl.where(y > top, top, y))
            y = tl.where((f > EPILOGUE.KINK_LOW) & (f < EPILOGUE.KINK_HIGH), within, y)
        store_tile(Y, y, tile)


@triton.jit(do_not_specialize=["N", "C", "S", "parts", "steps", "stride_slope"])
def normprop_backward_kernel(
    t, N, C, S, parts, steps, stride_slope, EPILOGUE: tl.constexpr, FROM_OUTPUT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    ACT: tl.constexpr = EPILOGUE.ACT
    STAGES: tl.constexpr = FORM.STAGES
    dtype: tl.constexpr = tl.float64 if t.du.dtype.element_ty == tl.float64 else tl.float32
    C, S = aligned(C, S, FORM)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, FORM)
    channels = low + tl.arange(0, FORM.BLOCK_A)
    b = broad(load(None if FROM_OUTPUT else t.bias, channels, channels < C, dtype), 2)
    if t.prelu is not None:
        a = broad(load(t.prelu, channels * stride_slope, channels < C, dtype), 2)
        scale, shift = prelu_affine(a)
        c1_slope = (a + (1 - a) * INVERSE_PI) / 2 * scale
    db, ds = zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype), zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        # du is 0 outside the tensor, for dy is
        du = load_tile(t.dy, tile, dtype)
        saved = affine(load_tile(t.saved, tile, dtype), None, b)
        if t.prelu is not None:
            du = du * scale
            # of y = (f - c2) / c1 over the slope a, times c1: the slopes of f and c2, and y times that of c1
            y = prelu(saved, a) * scale + shift
            ds += du * (tl.where(saved > 0, 0.0, saved) + DENSITY_0 - y * c1_slope)
            du = du * tl.where(saved > 0, 1.0, a)
        elif FROM_OUTPUT:
            du = du * (derivative_from_output(saved, EPILOGUE) * EPILOGUE.SCALE)
        else:
            du = du * (derivative(saved, ACT, EPILOGUE.LEAK) * EPILOGUE.SCALE)
        store_tile(t.du, du, tile)
        db += du
    store(t.partial_b, tl.sum(db, axis=1), row * C + channels, channels < C)
    store(t.partial_s, tl.sum(ds, axis=1), row * C + channels, channels < C)


def walking(read: tuple[Tensor, ...], last: bool, tile: dict[int, tuple[int, int]], most: int | None = None):
    """Rows of partial sums, programs, runtime arguments and constants of a kernel that walks these tensors."""
    u = read[0]
    N, C, S = (u.shape[0], u.shape[2], u.shape[1]) if last else u.shape
    z = sizes.Sizes(N, C, S, 1, C, last, u.element_size())
    s = sizes.split(z, tile, most)
    programs, (*_, each, steps), constants = sizes.walking(z, s, *read)
    return sizes.parts(z, s)[1], (programs,), (N, C, S, each, steps), constants


@on_device
def normprop_fwd(a):
    """Fill y, which may be u."""
    _, programs, given, constants = walking((a.u,), a.channels_last, sizes.FORWARD_TILE, sizes.STEPS)
    act = Epilogue(a.activation, a.leak, a.scale, a.shift, a.low, a.high, a.kink_low, a.kink_high)
    normprop_forward_kernel[programs](
        a.u, a.bias, a.slope, a.y, *given, stride(a.slope), EPILOGUE=act, **constants
    )  # fmt: skip


@on_device
def normprop_bwd(a):
    """Fill du, dbias and dslope, in one pass."""
    rows, programs, given, constants = walking((a.saved, a.dy), a.channels_last, sizes.BACKWARD_TILE)
    shape, dtype = (rows, given[1]), torch.float64 if a.du.dtype == torch.float64 else torch.float32
    # workspaces
    partial_b, partial_s = (None if p is None else p.new_empty(shape, dtype=dtype) for p in (a.dbias, a.dslope))
    normprop_backward_kernel[programs](
        Backward(a.dy, a.saved, a.bias, a.slope, a.du, partial_b, partial_s), *given, stride(a.slope),
        EPILOGUE=Epilogue(a.activation, a.leak, a.scale, a.shift, a.low, a.high), FROM_OUTPUT=a.from_output,
        **constants,
    )  # fmt: skip
    finalise(partial_s, partial_b, a.dslope, a.dbias)
