"""Streaming, forward: y = act((x - mean) / scale w + b + skip), the mean and scale that two memories hold."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import activation
from normkernels.backends.triton.base.launch import accumulator
from normkernels.backends.triton.base.numbers import cdiv
from normkernels.backends.triton.channels.backward import merge
from normkernels.backends.triton.channels.forward import apply, moments
from normkernels.backends.triton.channels.sizes import (
    FORWARD_LIMIT,
    FORWARD_TILE,
    holding,
    parts,
    resident,
    sizes,
    split,
    walking,
)
from normkernels.backends.triton.channels.tiles import (
    aligned,
    broad,
    centred,
    held,
    load,
    load_tile,
    preactivation,
    slope_of,
    step,
    store,
    store_tile,
    total,
    walk,
)
from normkernels.backends.triton.streaming.tiles import deviation, exponent, met

BLOCK = 256


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def streaming_forward_kernel(
    X, SKIP, W, B, LONG_TERM, SHORT_TERM, COUNTS, Y, FOUND, USED, DEVIATIONS, NEW,  # as in the schema
    C, S, G, PLANES, LONG: tl.float64, SHORT: tl.float64, P: tl.constexpr, WHOLE: tl.constexpr, PART: tl.constexpr,
    EPS: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64, IMAGES: tl.constexpr, LAST: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = FOUND.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    channels, there, _, tile = held(C, S, G, PLANES, IMAGES, LAST, ALIGN, BLOCK_A, BLOCK_K, BLOCK_B)
    count = (PLANES * S).to(dtype)
    x, found = centred(load_tile(X, tile, dtype), tile[2], count)
    away = deviation(x, WHOLE, PART)
    store(DEVIATIONS, total(away) / count, channels, there)
    power = total(away * x) / count
    mean, scale = met(
        found, power, LONG_TERM, SHORT_TERM, COUNTS, FOUND, USED, NEW, channels, there, C, LONG, SHORT, P, EPS
    )  # fmt: skip
    slope = slope_of(1 / scale, load(W, channels, there, dtype))
    x -= broad(mean - found, 3)
    u = preactivation(x, broad(slope, 3), broad(load(B, channels, there, dtype), 3), load_tile(SKIP, tile, dtype))
    store_tile(Y, activation(u, ACT, SLOPE), tile)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def streaming_powers_kernel(
    X, MEAN, PARTIAL_P, PARTIAL_D, N, C, S, G, images, parts, steps, WHOLE: tl.constexpr, PART: tl.constexpr,
    IMAGES: tl.constexpr, POOLED: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    # partials: (rows, C), sums of |x - mean|^p and of its derivative / p
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, IMAGES, BLOCK_A, BLOCK_B)
    channels = low + tl.arange(0, BLOCK_A)
    mean = load(MEAN, channels, channels < C, dtype)[:, None]
    power, away = tl.zeros([BLOCK_A, BLOCK_B], dtype), tl.zeros([BLOCK_A, BLOCK_B], dtype)
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        x = tl.where(tile[2], load_tile(X, tile, dtype) - mean, 0.0)
        d = deviation(x, WHOLE, PART)
        power += d * x
        away += d
    store(PARTIAL_P, tl.sum(power, axis=1), row * C + channels, channels < C)
    store(PARTIAL_D, tl.sum(away, axis=1), row * C + channels, channels < C)


@triton.jit(do_not_specialize=["C"])
def streaming_forward_rule_kernel(
    POWER, LONG_TERM, SHORT_TERM, COUNTS, FOUND, USED, NEW, C,
    LONG: tl.float64, SHORT: tl.float64, P: tl.constexpr, EPS: tl.float64, BLOCK_N: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = FOUND.dtype.element_ty
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    mean = load(FOUND, channels, there, dtype)
    power = tl.load(POWER + channels, mask=there, other=1.0)
    met(mean, power, LONG_TERM, SHORT_TERM, COUNTS, FOUND, USED, NEW, channels, there, C, LONG, SHORT, P, EPS)


def powers(x, mean, power, deviations, p, last):
    """Fill the means of |x - mean|^p and of |x - mean|^(p - 1) sign(x - mean)."""
    z = sizes(x, mean, last)
    s = split(z, FORWARD_TILE)
    rows = parts(z, s)[1]
    partial = accumulator(mean, rows, z.C), accumulator(mean, rows, z.C)
    programs, given, constants = walking(x, z, s)
    streaming_powers_kernel[(programs,)](x, mean, *partial, *given, **exponent(p), **constants)
    merge(*partial, None, power, deviations, None, None, z)


def forward(
    x, skip, weight, bias, long_term, short_term, counts, y, found, used, deviations, new_short_term,
    long, short, p, eps, activation, slope, last,
):  # fmt: skip
    """Fill y and the tables. A batch that a program holds is read once, a larger one again, from L2 if it fits."""
    z = sizes(x, found[0], last)
    memory, rule = (long_term, short_term, counts), {"LONG": long, "SHORT": short, "P": p, "EPS": eps}
    if tile := resident(z, FORWARD_LIMIT):
        programs, given, constants = holding(x, z, tile)
        streaming_forward_kernel[(programs,)](
            x, skip, weight, bias, *memory, y, found, used, deviations, new_short_term, *given,
            **rule, **exponent(p), ACT=activation, SLOPE=slope, **constants,
        )  # fmt: skip
        return
    power = accumulator(found, z.C)
    moments(x, found[0], power, last)
    if p != 2:
        powers(x, found[0], power, deviations, p, last)
    streaming_forward_rule_kernel[(cdiv(z.C, BLOCK),)](
        power, *memory, found, used, new_short_term, z.C, **rule, BLOCK_N=BLOCK, num_warps=4
    )  # fmt: skip
    apply(x, skip, weight, bias, used[0], used[1], y, None, activation, slope, last)
