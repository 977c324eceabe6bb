"""Online, forward: y = act(guard((x - mean) rstd w + b) + skip), mean and rstd of the state that a sample meets."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.activations import activation
from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.values import affine, number
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.forward import moments
from normkernels._backends.triton.channels.tiles import (
    aligned,
    broad,
    load,
    load_tile,
    preactivation,
    slope_of,
    store,
    store_tile,
)
from normkernels._backends.triton.channels.walks import step, walk_back
from normkernels._backends.triton.online.sizes import averaging, scanning, valuing
from normkernels._backends.triton.online.tiles import finite, guarded, last_row, mixture, of_sample, table, values


class Scanned(NamedTuple):
    """m, s: (N, C), mean and variance of the samples, s absent where a sample is one value; else as in the schema."""

    m: Tensor | None
    s: Tensor | None
    rates: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    mean: Tensor
    rstd: Tensor
    xhat_mean: Tensor | None
    xhat_square: Tensor | None
    new_mean: Tensor | None
    new_var: Tensor | None


class Applied(NamedTuple):
    """As in the schema."""

    x: Tensor
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    y: Tensor
    mean: Tensor
    rstd: Tensor
    gain: Tensor | None


@triton.jit(do_not_specialize=["N", "C"])
def online_scan_kernel(
    t, N, C, EPS: tl.float64, ALIGN: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    C = C // ALIGN * ALIGN
    channels = tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)[None, :]
    mean = load(t.running_mean, channels, channels < C, dtype)
    var = load(t.running_var, channels, channels < C, dtype)
    for start in range(0, N + 1, BLOCK_B):
        samples, channels, at, there = table(start, N, C, BLOCK_B, BLOCK_A)
        if t.rates is None:
            met_mean, met_var = tl.broadcast_to(mean, at.shape), tl.broadcast_to(var, at.shape)
        else:
            past = (samples > 0) & (samples <= N) & (channels < C)
            m = load(t.m, at - C, past, dtype)
            s = tl.zeros(at.shape, dtype)
            if t.s is not None:
                s = load(t.s, at - C, past, dtype)
            # so that (m - mean)^2 is finite too
            counts = finite(4 * (s + m * m)) & past
            rate = load(t.rates, samples - 1, (samples > 0) & (samples <= N), dtype)
            weight = tl.where(counts, rate, 0.0)
            weight, m, s = tl.associative_scan((weight, tl.where(counts, m, 0.0), tl.where(counts, s, 0.0)), 0, mixture)
            away = m - mean
            met_mean, met_var = mean + weight * away, var + weight * (s - var + (1 - weight) * (away * away))
            final = at - N.to(tl.int64) * C
            store(t.new_mean, met_mean, final, past & (samples == N))
            store(t.new_var, met_var, final, past & (samples == N))
            mean, var = last_row(met_mean), last_row(met_var)
        rstd = tl.rsqrt(met_var + number(EPS, dtype))
        store(t.mean, met_mean, at, there)
        store(t.rstd, rstd, at, there)
        if t.xhat_mean is not None:
            xhat = (load(t.m, at, there, dtype) - met_mean) * rstd
            store(t.xhat_mean, xhat, at, there)
            store(t.xhat_square, load(t.s, at, there, dtype) * rstd * rstd + xhat * xhat, at, there)


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
    t, N, C, S, G, images, parts, steps, SLOPE: tl.float64, CLAMP: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, image, first, tiles, channels, stat = walk_back(N, C, S, G, images, parts, steps, FORM)
    mean = load(t.mean, stat, channels < C, dtype)[:, None]
    rstd = load(t.rstd, stat, channels < C, dtype)
    slope = slope_of(rstd, load(t.weight, channels, channels < C, dtype))[:, None]
    b = broad(load(t.bias, channels, channels < C, dtype), 2)
    gain = of_sample(t.gain, image)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        z = guarded(affine(load_tile(t.x, tile, dtype) - mean, slope, b), gain, CLAMP)
        u = preactivation(z, None, None, load_tile(t.skip, tile, dtype))
        store_tile(t.y, activation(u, ACT, SLOPE), tile)


@triton.jit(do_not_specialize=["N", "C"])
def online_apply_values_kernel(
    t, N, C, SLOPE: tl.float64, CLAMP: tl.constexpr, ACT: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    # samples of one value: x is a table too
    dtype: tl.constexpr = t.mean.dtype.element_ty
    samples, channels, tile = values(N, C, ALIGN, BLOCK_A, BLOCK_B)
    slope = slope_of(load_tile(t.rstd, tile, dtype), load(t.weight, channels, channels < C, dtype))
    b = load(t.bias, channels, channels < C, dtype)
    gain = load(t.gain, samples, samples < N, dtype)
    z = guarded(affine(load_tile(t.x, tile, dtype) - load_tile(t.mean, tile, dtype), slope, b), gain, CLAMP)
    u = preactivation(z, None, None, load_tile(t.skip, tile, dtype))
    store_tile(t.y, activation(u, ACT, SLOPE), tile)


def forward(a) -> None:
    """Fill y and the tables: each sample's moments, the state that it meets, its gain, and then y."""
    N, C = a.mean.shape
    lone = a.x.numel() == a.mean.numel()
    m, s = (a.x, None) if lone else (None, None)
    if a.xhat_mean is not None:
        m, s = accumulator(a.mean, N, C), accumulator(a.mean, N, C)
        moments(a.x, m, s, a.channels_last)
    programs, tile = scanning(a.mean)
    met = a.mean, a.rstd, a.xhat_mean, a.xhat_square
    scanned = Scanned(m, s, a.rates, a.running_mean, a.running_var, *met, a.new_mean, a.new_var)
    online_scan_kernel[(programs,)](scanned, N, C, EPS=a.eps, **tile)
    if a.gain is not None:
        programs, tile = averaging(a.mean)
        online_gain_kernel[(programs,)](
            m, s, a.mean, a.rstd, a.weight, a.bias, a.gain, C, EPS=a.ls_eps, **tile
        )  # fmt: skip
    t = Applied(a.x, a.skip, a.weight, a.bias, a.y, a.mean, a.rstd, a.gain)
    constants = {"SLOPE": a.slope, "CLAMP": a.clamp, "ACT": a.activation}
    if lone:
        programs, tile = valuing(a.x, a.mean)
        online_apply_values_kernel[(programs,)](t, N, C, **constants, **tile)
        return
    z = sizes.of(a.x, a.mean, a.channels_last)
    programs, walked, tile = sizes.walking(z, sizes.split(z, sizes.FORWARD_TILE, sizes.STEPS), a.x, a.skip)
    online_apply_kernel[(programs,)](t, *walked, **constants, **tile)
