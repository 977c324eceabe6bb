"""Scan, forward: y = act(guard((x - mean) rstd w + b) + skip), mean and rstd of the state that a sample meets."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import activation
from normkernels.backends.triton.base.launch import accumulator
from normkernels.backends.triton.base.values import affine, number
from normkernels.backends.triton.channels.forward import moments
from normkernels.backends.triton.channels.sizes import FORWARD_TILE, STEPS, sizes, split, walking
from normkernels.backends.triton.channels.tiles import (
    aligned,
    broad,
    load,
    load_tile,
    place,
    preactivation,
    slope_of,
    step,
    store,
    store_tile,
    walk,
)
from normkernels.backends.triton.online.sizes import averaging, scanning, valuing
from normkernels.backends.triton.online.tiles import finite, guarded, last_row, mixture, of_sample, table, values


@triton.jit(do_not_specialize=["N", "C"])
def online_scan_kernel(
    M, S, RATES, RUNNING_MEAN, RUNNING_VAR, MEAN, RSTD, XHAT_MEAN, XHAT_SQUARE, NEW_MEAN, NEW_VAR,
    N, C, EPS: tl.float64, ALIGN: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr,
):  # fmt: skip
    # m, s: (N, C), mean and variance of the samples, s absent where a sample is one value
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C = C // ALIGN * ALIGN
    channels = tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)[None, :]
    mean = load(RUNNING_MEAN, channels, channels < C, dtype)
    var = load(RUNNING_VAR, channels, channels < C, dtype)
    for start in range(0, N + 1, BLOCK_B):
        samples, channels, at, there = table(start, N, C, BLOCK_B, BLOCK_A)
        if RATES is None:
            met_mean, met_var = tl.broadcast_to(mean, at.shape), tl.broadcast_to(var, at.shape)
        else:
            past = (samples > 0) & (samples <= N) & (channels < C)
            m = load(M, at - C, past, dtype)
            s = tl.zeros(at.shape, dtype)
            if S is not None:
                s = load(S, at - C, past, dtype)
            # so that (m - mean)^2 is finite too
            counts = finite(4 * (s + m * m)) & past
            rate = load(RATES, samples - 1, (samples > 0) & (samples <= N), dtype)
            weight = tl.where(counts, rate, 0.0)
            weight, m, s = tl.associative_scan((weight, tl.where(counts, m, 0.0), tl.where(counts, s, 0.0)), 0, mixture)
            away = m - mean
            met_mean, met_var = mean + weight * away, var + weight * (s - var + (1 - weight) * (away * away))
            final = at - N.to(tl.int64) * C
            store(NEW_MEAN, met_mean, final, past & (samples == N))
            store(NEW_VAR, met_var, final, past & (samples == N))
            mean, var = last_row(met_mean), last_row(met_var)
        rstd = tl.rsqrt(met_var + number(EPS, dtype))
        store(MEAN, met_mean, at, there)
        store(RSTD, rstd, at, there)
        if XHAT_MEAN is not None:
            xhat = (load(M, at, there, dtype) - met_mean) * rstd
            store(XHAT_MEAN, xhat, at, there)
            store(XHAT_SQUARE, load(S, at, there, dtype) * rstd * rstd + xhat * xhat, at, there)


@triton.jit(do_not_specialize=["C"])
def online_gain_kernel(
    M, S, MEAN, RSTD, W, B, GAIN, C, EPS: tl.float64, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr
):  # fmt: skip
    # mean(z^2) of a sample: per channel the square of z's mean, and its variance
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C = C // ALIGN * ALIGN
    squares = tl.zeros([BLOCK_A], dtype)
    for low in range(0, C, BLOCK_A):
        channels = low + tl.arange(0, BLOCK_A)
        there, at = channels < C, tl.program_id(0).to(tl.int64) * C + channels
        slope = slope_of(load(RSTD, at, there, dtype), load(W, channels, there, dtype))
        z = affine(load(M, at, there, dtype) - load(MEAN, at, there, dtype), slope, load(B, channels, there, dtype))
        squares += tl.where(there, z * z, 0.0)
        if S is not None:
            squares += load(S, at, there, dtype) * slope * slope
    tl.store(GAIN + tl.program_id(0), tl.rsqrt(tl.sum(squares, axis=0) / C.to(dtype) + number(EPS, dtype)))


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def online_apply_kernel(
    X, SKIP, W, B, Y, MEAN, RSTD, GAIN, N, C, S, G, images, parts, steps,
    CLAMP: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.float64,
    IMAGES: tl.constexpr, POOLED: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    # the last part first: it was read last, so it may still be in L2
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    low, _, image, first, tiles = walk(program, N, C, S, parts, steps, IMAGES, BLOCK_A, BLOCK_B)
    channels = low + tl.arange(0, BLOCK_A)
    stat = place(image, channels, C, G, images, POOLED)
    mean = load(MEAN, stat, channels < C, dtype)[:, None]
    slope = slope_of(load(RSTD, stat, channels < C, dtype), load(W, channels, channels < C, dtype))[:, None]
    b = broad(load(B, channels, channels < C, dtype), 2)
    gain = of_sample(GAIN, image)
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        z = guarded(affine(load_tile(X, tile, dtype) - mean, slope, b), gain, CLAMP)
        u = preactivation(z, None, None, load_tile(SKIP, tile, dtype))
        store_tile(Y, activation(u, ACT, SLOPE), tile)


@triton.jit(do_not_specialize=["N", "C"])
def online_apply_values_kernel(
    X, SKIP, W, B, Y, MEAN, RSTD, GAIN, N, C, CLAMP: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.float64,
    ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    # samples of one value: x is a table too
    dtype: tl.constexpr = MEAN.dtype.element_ty
    samples, channels, tile = values(N, C, ALIGN, BLOCK_A, BLOCK_B)
    slope = slope_of(load_tile(RSTD, tile, dtype), load(W, channels, channels < C, dtype))
    b = load(B, channels, channels < C, dtype)
    gain = load(GAIN, samples, samples < N, dtype)
    z = guarded(affine(load_tile(X, tile, dtype) - load_tile(MEAN, tile, dtype), slope, b), gain, CLAMP)
    u = preactivation(z, None, None, load_tile(SKIP, tile, dtype))
    store_tile(Y, activation(u, ACT, SLOPE), tile)


def forward(
    x, skip, weight, bias, running_mean, running_var, rates, y, mean, rstd, xhat_mean, xhat_square, gain,
    new_mean, new_var, eps, ls_eps, clamp, activation, slope, last,
):  # fmt: skip
    """Fill y and the tables: each sample's moments, the state that it meets, its gain, and then y."""
    N, C = mean.shape
    lone = x.numel() == mean.numel()
    m, s = (x, None) if lone else (None, None)
    if xhat_mean is not None:
        m, s = accumulator(mean, N, C), accumulator(mean, N, C)
        moments(x, m, s, last)
    programs, tile = scanning(mean)
    online_scan_kernel[(programs,)](
        m, s, rates, running_mean, running_var, mean, rstd, xhat_mean, xhat_square, new_mean, new_var, N, C,
        EPS=eps, **tile,
    )  # fmt: skip
    if gain is not None:
        programs, tile = averaging(mean)
        online_gain_kernel[(programs,)](m, s, mean, rstd, weight, bias, gain, C, EPS=ls_eps, **tile)
    given, constants = (x, skip, weight, bias, y, mean, rstd, gain), {"CLAMP": clamp, "ACT": activation, "SLOPE": slope}
    if lone:
        programs, tile = valuing(x, mean)
        online_apply_values_kernel[(programs,)](*given, N, C, **constants, **tile)
        return
    z = sizes(x, mean, last)
    programs, walked, tile = walking(x, z, split(z, FORWARD_TILE, STEPS))
    online_apply_kernel[(programs,)](*given, *walked, **constants, **tile)
