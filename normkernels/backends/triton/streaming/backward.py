"""Streaming, backward: dx = du w / scale + slope deviation(x - mean) + shift, both from streamed gradients."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.launch import accumulator
from normkernels.backends.triton.base.numbers import cdiv
from normkernels.backends.triton.base.values import affine
from normkernels.backends.triton.channels.backward import sums
from normkernels.backends.triton.channels.sizes import (
    BACKWARD_LIMIT,
    BACKWARD_TILE,
    STEPS,
    holding,
    resident,
    sizes,
    split,
    walking,
)
from normkernels.backends.triton.channels.tiles import (
    aligned,
    broad,
    differentiated,
    held,
    load,
    load_tile,
    slope_of,
    statistics,
    step,
    store,
    store_tile,
    total,
    walk,
)
from normkernels.backends.triton.streaming.tiles import arrived, deviation, exponent

BLOCK = 256


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def streaming_backward_kernel(
    DY, X, SKIP, W, B, FOUND, USED, DEVIATIONS, LONG_TERM, SHORT_TERM, COUNTS, DX, DSKIP, DW, DB, NEW,
    C, S, G, PLANES, LONG: tl.float64, SHORT: tl.float64, CURRENT: tl.float64,
    P: tl.constexpr, WHOLE: tl.constexpr, PART: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.float64,
    IMAGES: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = FOUND.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    channels, there, _, tile = held(C, S, G, PLANES, IMAGES, LAST, ALIGN, BLOCK_A, BLOCK_K, BLOCK_B)
    mean, rstd = statistics(USED, USED + C, channels, there, None)
    w = load(W, channels, there, dtype)
    b = load(B if ACT != "identity" else None, channels, there, dtype)
    x = load_tile(X, tile, dtype)
    xhat = (x - broad(mean, 3)) * broad(rstd, 3)
    du = differentiated(DY, SKIP, xhat, broad(w, 3), broad(b, 3), tile, ACT, SLOPE)
    store_tile(DSKIP, du, tile)
    dw, db = total(du * xhat), total(du)
    store(DW, dw, channels, there)
    store(DB, db, channels, there)
    slope, shift = arrived(
        affine(dw, w, None), affine(db, w, None), 1 / rstd, FOUND, DEVIATIONS, LONG_TERM, SHORT_TERM, COUNTS, NEW,
        channels, there, C, (PLANES * S).to(dtype), LONG, SHORT, CURRENT, P,
    )  # fmt: skip
    away = deviation(x - broad(load(FOUND, channels, there, dtype), 3), WHOLE, PART)
    store_tile(DX, du * broad(slope_of(rstd, w), 3) + away * broad(slope, 3) + broad(shift, 3), tile)


@triton.jit(do_not_specialize=["C", "count"])
def streaming_backward_rule_kernel(
    SUM_GX, SUM_G, W, FOUND, USED, DEVIATIONS, LONG_TERM, SHORT_TERM, COUNTS, NEW, DW, DB, AWAY, SHIFT, C, count,
    LONG: tl.float64, SHORT: tl.float64, CURRENT: tl.float64, P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = FOUND.dtype.element_ty
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    dw = load(SUM_GX, channels, there, dtype)
    db = load(SUM_G, channels, there, dtype)
    store(DW, dw, channels, there)
    store(DB, db, channels, there)
    w = load(W, channels, there, dtype)
    scale = tl.load(USED + C + channels, mask=there, other=1.0)
    slope, shift = arrived(
        affine(dw, w, None), affine(db, w, None), scale, FOUND, DEVIATIONS, LONG_TERM, SHORT_TERM, COUNTS, NEW,
        channels, there, C, count.to(dtype), LONG, SHORT, CURRENT, P,
    )  # fmt: skip
    store(AWAY, slope, channels, there)
    store(SHIFT, shift, channels, there)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def streaming_dx_kernel(
    DY, X, SKIP, W, B, FOUND, USED, AWAY, SHIFT, DX, DSKIP, N, C, S, G, images, parts, steps,
    WHOLE: tl.constexpr, PART: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.float64,
    IMAGES: tl.constexpr, POOLED: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = FOUND.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    # the last part first: it was read last, so it may still be in L2
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    low, _, image, first, tiles = walk(program, N, C, S, parts, steps, IMAGES, BLOCK_A, BLOCK_B)
    channels = low + tl.arange(0, BLOCK_A)
    there = channels < C
    mean, rstd = statistics(USED, USED + C, channels, there, None)
    w = load(W, channels, there, dtype)
    b = load(B if ACT != "identity" else None, channels, there, dtype)
    slope = slope_of(rstd, w)[:, None]
    w = broad(w, 2)
    b = broad(b, 2)
    mean, rstd, found = mean[:, None], rstd[:, None], load(FOUND, channels, there, dtype)[:, None]
    of_away, shift = load(AWAY, channels, there, dtype)[:, None], load(SHIFT, channels, there, dtype)[:, None]
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        x = load_tile(X, tile, dtype)
        du = differentiated(DY, SKIP, (x - mean) * rstd, w, b, tile, ACT, SLOPE)
        store_tile(DSKIP, du, tile)
        away = deviation(x - found, WHOLE, PART)
        store_tile(DX, du * slope + away * of_away + shift, tile)


def backward(
    dy, x, skip, weight, bias, found, used, deviations, long_term, short_term, counts, dx, dskip, dweight, dbias,
    new_short_term, long, short, current, p, eps, activation, slope, last,
):  # fmt: skip
    """Fill dx, dskip, dweight, dbias and the new short term. A batch that a program holds is read once."""
    z = sizes(x, found[0], last)
    inputs, memory = (dy, x, skip, weight, bias), (found, used, deviations, long_term, short_term, counts)
    rule, act = {"LONG": long, "SHORT": short, "CURRENT": current, "P": p}, {"ACT": activation, "SLOPE": slope}
    if tile := resident(z, BACKWARD_LIMIT, 1 if activation == "identity" else 2):
        programs, given, constants = holding(x, z, tile)
        streaming_backward_kernel[(programs,)](
            *inputs, *memory, dx, dskip, dweight, dbias, new_short_term, *given, **rule, **exponent(p), **act,
            **constants,
        )  # fmt: skip
        return
    sum_g, sum_gx, away, shift = (accumulator(used, z.C) for _ in range(4))
    sums(*inputs, used[0], used[1], sum_g, sum_gx, None, activation, slope, last)
    streaming_backward_rule_kernel[(cdiv(z.C, BLOCK),)](
        sum_gx, sum_g, weight, *memory, new_short_term, dweight, dbias, away, shift, z.C, z.planes * z.S, **rule,
        BLOCK_N=BLOCK, num_warps=4,
    )  # fmt: skip
    programs, given, constants = walking(x, z, split(z, BACKWARD_TILE, STEPS))
    streaming_dx_kernel[(programs,)](
        *inputs, found, used, away, shift, dx, dskip, *given, **exponent(p), **act, **constants
    )  # fmt: skip
