"""Online: what the kernels share on a loaded tile.

A state moves from sample to sample, but what moves it is known before: all samples are reduced at once, to tables
(N, C), and only these are scanned. The samples of a tile are composed with each other, then applied to the state that
the tile before left. Row n of a tile holds what came before sample n, so that row N is what the batch leaves.
"""

import triton
import triton.language as tl

from normkernels._backends.triton.base.activations import clamp, derivative
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels.tiles import Tile, load, preactivation


@triton.jit
def mixture(weight1, mean1, var1, weight2, mean2, var2):
    # of samples, then of later ones: what they weigh beside all before them, and their weighted moments
    weight = weight2 + (1 - weight2) * weight1
    share = weight2 / tl.where(weight > 0, weight, 1.0)
    away = mean2 - mean1
    return weight, mean1 + share * away, var1 + share * (var2 - var1 + (1 - share) * (away * away))


@triton.jit
def chained(a1, b1, c1, d1, f1, a2, b2, c2, d2, f2):
    # the map (e, u) -> (a e + b, c e + d u + f), then a second one
    return a2 * a1, a2 * b1 + b2, c2 * a1 + d2 * c1, d2 * d1, c2 * b1 + d2 * f1 + f2


@triton.jit
def last_row(t):
    # of a tile, as (1, BLOCK_A)
    rows = tl.arange(0, t.shape[0])[:, None]
    return tl.sum(tl.where(rows == t.shape[0] - 1, t, 0.0), axis=0)[None, :]


@triton.jit
def finite(t):
    return tl.abs(t) < float("inf")


@triton.jit
def table(start, N, C, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr):
    # rows from `start` of a program's channels: samples, channels, places in (N, C), which exist
    samples = start + tl.arange(0, BLOCK_B)[:, None]
    channels = tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)[None, :]
    return samples, channels, samples.to(tl.int64) * C + channels, (samples < N) & (channels < C)


@triton.jit
def values(N, C, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr):
    # a program's tile of samples of one value: samples, channels, tile of x and of every table
    C = C // ALIGN * ALIGN
    blocks = tl.cdiv(C, BLOCK_A)
    samples = tl.program_id(0) // blocks * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    channels = tl.program_id(0) % blocks * BLOCK_A + tl.arange(0, BLOCK_A)[None, :]
    return samples, channels, Tile(0, samples.to(tl.int64) * C + channels, (samples < N) & (channels < C))


@triton.jit
def averages(t, at, mask, dtype: tl.constexpr):
    # rstd, and over a sample the means of xhat and xhat^2; a sample without tables is one value
    rstd = load(t.rstd, at, mask, dtype)
    if t.xhat_mean is None:
        xhat = (load(t.x, at, mask, dtype) - load(t.mean, at, mask, dtype)) * rstd
        square = xhat * xhat
    else:
        xhat = load(t.xhat_mean, at, mask, dtype)
        square = load(t.xhat_square, at, mask, dtype)
    return rstd, xhat, square


@triton.jit
def of_sample(P, image):
    # a sample's number, or None
    if P is not None:
        return tl.load(P + image)


@triton.jit
def guarded(z, gain, CLAMP: tl.constexpr):
    # z scaled or clamped
    if gain is not None:
        z = z * gain
    if CLAMP != float("inf"):
        z = clamp(z, -CLAMP, CLAMP)
    return z


@triton.jit
def gradient(dy, xhat, w, b, gain, skip, CLAMP: tl.constexpr, ACT: tl.constexpr, SLOPE):
    # z = xhat w + b, du = dy act'(u), and what of du the clamp lets through
    z = affine(xhat, w, b)
    if ACT != "identity":
        dy = dy * derivative(preactivation(guarded(z, gain, CLAMP), None, None, skip), ACT, SLOPE)
    return z, dy, dy * (tl.abs(z) <= CLAMP).to(dy.dtype)


@triton.jit
def unscaled(dz, z, gain, kappa):
    # through z gain, kappa: mean(dz z gain) over the sample
    if gain is not None:
        dz = (dz - z * gain * kappa) * gain
    return dz
