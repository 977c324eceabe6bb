"""Streaming, forward: y = act((x - mean) / scale w + b + skip), the mean and scale that two memories hold."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.activations import activation
from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.backward import merge
from normkernels._backends.triton.channels.forward import apply, moments
from normkernels._backends.triton.channels.tensors import Forward as Applied
from normkernels._backends.triton.channels.tiles import (
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
    zeros,
)
from normkernels._backends.triton.channels.walks import step, walk
from normkernels._backends.triton.streaming.tiles import deviation, met

BLOCK = 256


class Forward(NamedTuple):
    """As in the schema."""

    x: Tensor | None
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    long_term: Tensor
    short_term: Tensor
    counts: Tensor
    y: Tensor | None
    found: Tensor
    used: Tensor
    deviations: Tensor | None
    new_short_term: Tensor


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def streaming_forward_kernel(
    t, C, S, G, PLANES, LONG: tl.float64, SHORT: tl.float64, EPS: tl.float64, SLOPE: tl.float64,
    P: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = t.found.dtype.element_ty
    C, S = aligned(C, S, FORM)
    channels, there, _, tile = held(C, S, G, PLANES, FORM)
    count = (PLANES * S).to(dtype)
    x, found = centred(load_tile(t.x, tile, dtype), tile.mask, count)
    away = deviation(x, P)
    store(t.deviations, total(away) / count, channels, there)
    power = total(away * x) / count
    mean, scale = met(t, found, power, channels, there, C, LONG, SHORT, EPS, P)
    slope = slope_of(1 / scale, load(t.weight, channels, there, dtype))
    x -= broad(mean - found, 3)
    b = broad(load(t.bias, channels, there, dtype), 3)
    u = preactivation(x, broad(slope, 3), b, load_tile(t.skip, tile, dtype))
    store_tile(t.y, activation(u, ACT, SLOPE), tile)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def streaming_powers_kernel(
    X, MEAN, PARTIAL_P, PARTIAL_D, N, C, S, G, images, parts, steps,
    P: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    # partials: (rows, C), sums of |x - mean|^p and of its derivative / p
    dtype: tl.constexpr = MEAN.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, FORM)
    channels = low + tl.arange(0, FORM.BLOCK_A)
    mean = load(MEAN, channels, channels < C, dtype)[:, None]
    power, away = zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype), zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        x = tl.where(tile.mask, load_tile(X, tile, dtype) - mean, 0.0)
        d = deviation(x, P)
        power += d * x
        away += d
    store(PARTIAL_P, tl.sum(power, axis=1), row * C + channels, channels < C)
    store(PARTIAL_D, tl.sum(away, axis=1), row * C + channels, channels < C)


@triton.jit(do_not_specialize=["C"])
def streaming_forward_rule_kernel(
    t, POWER, C, LONG: tl.float64, SHORT: tl.float64, EPS: tl.float64, P: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    mean = load(t.found, channels, there, t.found.dtype.element_ty)
    power = tl.load(POWER + channels, mask=there, other=1.0)
    met(t, mean, power, channels, there, C, LONG, SHORT, EPS, P)


def powers(a, power: Tensor) -> None:
    """Fill the means of |x - mean|^p and of |x - mean|^(p - 1) sign(x - mean)."""
    z = sizes.of(a.x, a.found[0], a.channels_last)
    s = sizes.split(z, sizes.FORWARD_TILE)
    rows = sizes.parts(z, s)[1]
    partial = accumulator(a.found, rows, z.C), accumulator(a.found, rows, z.C)
    programs, given, constants = sizes.walking(z, s, a.x)
    streaming_powers_kernel[(programs,)](a.x, a.found[0], *partial, *given, P=a.p, **constants)
    merge(*partial, None, power, a.deviations, None, None, z)


def forward(a) -> None:
    """Fill y and the tables. A batch that a program holds is read once, a larger one again, from L2 if it fits."""
    z = sizes.of(a.x, a.found[0], a.channels_last)
    rule = {"LONG": a.long, "SHORT": a.short, "EPS": a.eps, "P": a.p}
    tables = a.found, a.used, a.deviations, a.new_short_term
    t = Forward(a.x, a.skip, a.weight, a.bias, a.long_term, a.short_term, a.counts, a.y, *tables)
    # of a cluster a thread holds twice as much, which with deviations fits no registers
    if tile := sizes.resident(z._replace(most=1), sizes.FORWARD_LIMIT):
        programs, given, constants = sizes.holding(a.x, z, tile)
        streaming_forward_kernel[(programs,)](t, *given, **rule, SLOPE=a.slope, ACT=a.activation, **constants)
        return
    power = accumulator(a.found, z.C)
    moments(a.x, a.found[0], power, a.channels_last)
    if a.p != 2:
        powers(a, power)
    memory = t._replace(x=None, skip=None, weight=None, bias=None, y=None, deviations=None)
    streaming_forward_rule_kernel[(cdiv(z.C, BLOCK),)](memory, power, z.C, **rule, BLOCK_N=BLOCK, num_warps=4)
    apply(Applied(a.x, a.skip, a.weight, a.bias, a.y, a.used[0], None, a.used[1]), a)
