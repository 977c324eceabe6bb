"""Streaming: what its kernels share on a loaded tile or table."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.values import number
from normkernels.backends.triton.channels.tiles import load, store


def exponent(p: float) -> dict[str, int | float]:
    """p in whole and in part: whole powers are products, which round less than a logarithm."""
    return {"WHOLE": int(p), "PART": p - int(p)}


@triton.jit
def deviation(v, WHOLE: tl.constexpr, PART: tl.constexpr):
    # |v|^(p - 1) sign(v)
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
def streamed(
    found, LONG_TERM, SHORT_TERM, COUNTS, NEW, at, there,
    LONG, SHORT, CURRENT,
):  # fmt: skip
    # what is used; and the new short term, which stands in for a long term that is not yet there
    arrivals, updates = tl.load(COUNTS), tl.load(COUNTS + 1)
    short = load(SHORT_TERM, at, there, found.dtype)
    short += (found - short) / (arrivals + 1)
    store(NEW, short, at, there)
    past = tl.where(updates > 0, load(LONG_TERM, at, there, found.dtype), short)
    long, now = number(LONG, found.dtype), number(CURRENT, found.dtype)
    return long * past + number(SHORT, found.dtype) * short + now * found


@triton.jit
def met(
    mean, power, LONG_TERM, SHORT_TERM, COUNTS, FOUND, USED, NEW, channels, there, C,
    LONG, SHORT, P: tl.constexpr, EPS,
):  # fmt: skip
    # the mean and the scale that are used; power: the mean of |x - mean|^p
    scale = root(power + number(EPS, power.dtype), P)
    store(FOUND, mean, channels, there)
    store(FOUND, scale, C + channels, there)
    mean = streamed(mean, LONG_TERM, SHORT_TERM, COUNTS, NEW, channels, there, LONG, SHORT, 0.0)
    scale = streamed(scale, LONG_TERM, SHORT_TERM, COUNTS, NEW, C + channels, there, LONG, SHORT, 0.0)
    store(USED, mean, channels, there)
    store(USED, scale, C + channels, there)
    return mean, tl.where(there, scale, 1.0)


@triton.jit
def arrived(
    gx, g, scale, FOUND, DEVIATIONS, LONG_TERM, SHORT_TERM, COUNTS, NEW, channels, there, C, count,
    LONG, SHORT, CURRENT, P: tl.constexpr,
):  # fmt: skip
    # from the sums of g xhat and of g: dx = g / scale + slope deviation(x - mean) + shift
    of_mean = streamed(-g / scale, LONG_TERM, SHORT_TERM, COUNTS, NEW, channels, there, LONG, SHORT, CURRENT)
    slope = streamed(-gx / scale, LONG_TERM, SHORT_TERM, COUNTS, NEW, C + channels, there, LONG, SHORT, CURRENT)
    found = tl.load(FOUND + C + channels, mask=there, other=1.0)
    shift, slope = of_mean / count, slope / count
    if P == 2.0:
        slope = slope / found
    elif P != 1.0:
        slope = slope * tl.exp2(tl.log2(found.to(tl.float64)) * (1 - P)).to(slope.dtype)
    if DEVIATIONS is not None:
        shift -= slope * load(DEVIATIONS, channels, there, slope.dtype)
    return slope, shift
