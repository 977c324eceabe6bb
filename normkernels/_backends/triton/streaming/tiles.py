"""Streaming: what its kernels share on a loaded tile or table."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.values import number
from normkernels._backends.triton.channels.tiles import load, store


@triton.constexpr_function
def whole(p):
    """The whole part of an exponent: whole powers are products, which round less than a logarithm."""
    return int(p)


@triton.jit
def deviation(v, P: tl.constexpr):
    # |v|^(p - 1) sign(v)
    WHOLE: tl.constexpr = whole(P)
    PART: tl.constexpr = P - WHOLE
    size = tl.abs(v)
    if WHOLE == 1:
        away = (v > 0).to(v.dtype) - (v < 0).to(v.dtype)
    else:
        away = v
    for _ in tl.static_range(WHOLE - 2):
        away = away * size
    if PART == 0.5:
        away = away * tl.sqrt(size)
    elif PART != 0.0:
        away = away * tl.exp2(PART * tl.log2(tl.where(size > 0, size, 1.0)))
    return away


@triton.jit
def root(t, P: tl.constexpr):
    # t^(1 / p)
    if P == 2.0:
        t = tl.sqrt(t)
    elif P != 1.0:
        t = tl.exp2(tl.log2(t.to(tl.float64)) / P).to(t.dtype)
    return t


@triton.jit
def streamed(found, t, at, there, LONG, SHORT, CURRENT):
    # what is used; and the new short term, which stands in for a long term that is not yet there
    arrivals, updates = tl.load(t.counts), tl.load(t.counts + 1)
    short = load(t.short_term, at, there, found.dtype)
    short += (found - short) / (arrivals + 1)
    store(t.new_short_term, short, at, there)
    past = tl.where(updates > 0, load(t.long_term, at, there, found.dtype), short)
    long, now = number(LONG, found.dtype), number(CURRENT, found.dtype)
    return long * past + number(SHORT, found.dtype) * short + now * found


@triton.jit
def met(t, mean, power, channels, there, C, LONG, SHORT, EPS, P: tl.constexpr):
    # the mean and the scale that are used; power: the mean of |x - mean|^p
    scale = root(power + number(EPS, power.dtype), P)
    store(t.found, mean, channels, there)
    store(t.found, scale, C + channels, there)
    mean = streamed(mean, t, channels, there, LONG, SHORT, 0.0)
    scale = streamed(scale, t, C + channels, there, LONG, SHORT, 0.0)
    store(t.used, mean, channels, there)
    store(t.used, scale, C + channels, there)
    return mean, tl.where(there, scale, 1.0)


@triton.jit
def arrived(t, gx, g, scale, channels, there, C, count, LONG, SHORT, CURRENT, P: tl.constexpr):
    # from the sums of g xhat and of g: dx = g / scale + slope deviation(x - mean) + shift
    of_mean = streamed(-g / scale, t, channels, there, LONG, SHORT, CURRENT)
    slope = streamed(-gx / scale, t, C + channels, there, LONG, SHORT, CURRENT)
    found = tl.load(t.found + C + channels, mask=there, other=1.0)
    shift, slope = of_mean / count, slope / count
    if P == 2.0:
        slope = slope / found
    elif P != 1.0:
        slope = slope * tl.exp2(tl.log2(found.to(tl.float64)) * (1 - P)).to(slope.dtype)
    if t.deviations is not None:
        shift -= slope * load(t.deviations, channels, there, slope.dtype)
    return slope, shift
