"""Channels: what the kernels of batch, group and instance norm share on a loaded tile.

x is (N, C, S), or (N, S, C) where the channels lie LAST. A plane is one channel of one image: S positions. A statistic
pools PLANES planes, those of one channel over the IMAGES of a batch or those of adjacent channels of one image.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from normkernels._backends.triton.base.activations import activation, derivative
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import affine, number, rounded


class Tile(NamedTuple):
    """Values of x: where the first lies, how far from it each, and which exist."""

    start: tl.tensor
    at: tl.tensor
    mask: tl.tensor


@triton.jit
def zeros(ROWS: tl.constexpr, COLS: tl.constexpr, dtype: tl.constexpr):
    return tl.zeros([ROWS, COLS], dtype)


@triton.jit
def aligned(C, S, FORM: tl.constexpr):
    ALIGN: tl.constexpr = FORM.ALIGN
    if FORM.LAST:
        C = C // ALIGN * ALIGN
    else:
        S = S // ALIGN * ALIGN
    return C, S


@triton.jit
def offset(channels, positions, C, S, LAST: tl.constexpr):
    # within an image; 32 bits do within a tile
    if LAST:
        at = positions * C + channels
    else:
        at = channels * S + positions
    return at


@triton.jit
def held(C, S, G, PLANES, FORM: tl.constexpr):
    # of the statistics that a program holds: places in (B, G), which exist, channels, tile of x
    BLOCK_A: tl.constexpr = FORM.BLOCK_A
    BLOCK_K: tl.constexpr = FORM.BLOCK_K
    LAST: tl.constexpr = FORM.LAST
    batch = (tl.program_id(0) // tl.cdiv(G, BLOCK_A)).to(tl.int64)
    low = tl.program_id(0) % tl.cdiv(G, BLOCK_A) * BLOCK_A
    groups, planes, positions = (
        low + tl.arange(0, BLOCK_A),
        tl.arange(0, BLOCK_K),
        tl.arange(0, FORM.BLOCK_B)[None, None, :],
    )
    stat, there = batch * G + groups, groups < G
    inside = tl.arange(0, BLOCK_A)
    if FORM.IMAGES:
        at = planes.to(tl.int64)[None, :, None] * C * S + offset(inside[:, None, None], positions, C, S, LAST)
    elif BLOCK_K == 1:
        at = offset(inside[:, None, None], positions, C, S, LAST)
    else:
        if LAST:
            PLANES = PLANES // FORM.ALIGN * FORM.ALIGN
        groups = groups[:, None] * PLANES + planes[None, :]
        low = low * PLANES
        at = offset((inside[:, None] * PLANES + planes[None, :])[:, :, None], positions, C, S, LAST)
    start = batch * C * S + offset(low.to(tl.int64), 0, C, S, LAST)
    mask = (broad(groups, 3) < C) & (planes[None, :, None] < PLANES) & (positions < S)
    return stat, there, groups, Tile(start, at, mask)


@triton.jit
def broad(v, RANK: tl.constexpr):
    # v with dims of 1 behind, loaded before it gets them, for a load of such dims is repeated
    if v is not None:
        for _ in tl.static_range(RANK - len(v.shape)):
            v = tl.expand_dims(v, -1)
        return v


@triton.jit
def flat(x):
    # the planes and positions of each statistic side by side
    return tl.reshape(x, (x.shape[0], x.shape[1] * x.shape[2]))


@triton.jit
def total(x):
    # over the planes and positions of each statistic
    return tl.sum(flat(x), axis=1)


@triton.jit
def moments_of(x, mask, count):
    # x - mean, mean, variance. The first mean is off by up to ulp(mean) / 2, rest; of the squares about it, what those
    # about the second one lack is within their rounding
    mean = total(x) / count
    x = tl.where(mask, x - broad(mean, 3), 0.0)
    rest, squares = both_sums(flat(x), flat(x * x))
    rest, squares = rest / count, squares / count
    var = tl.maximum(squares - rest * rest, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return x - broad(rest, 3), mean + rest, var


@triton.jit
def centred(x, mask, count):
    # x - mean, mean: two steps, for rounding leaves the first mean up to ulp(mean) / 2 off
    mean = total(x) / count
    x = tl.where(mask, x - broad(mean, 3), 0.0)
    rest = total(x) / count
    return tl.where(mask, x - broad(rest, 3), 0.0), mean + rest


@triton.jit
def records(C, G, rows, start, FORM: tl.constexpr):
    # a tile of the (rows of a batch, C) partial results: BLOCK_R of those of each of BLOCK_G statistics
    BLOCK_G: tl.constexpr = FORM.BLOCK_G
    batch = (tl.program_id(0) // tl.cdiv(G, BLOCK_G)).to(tl.int64)
    groups = tl.program_id(0) % tl.cdiv(G, BLOCK_G) * BLOCK_G + tl.arange(0, BLOCK_G)
    record = start + tl.arange(0, FORM.BLOCK_R)[:, None]
    row = record // (C // G)
    channels = groups[None, :] * (C // G) + record % (C // G)
    mask = (row < rows) & (groups[None, :] < G)
    return batch * G + groups, groups < G, channels, (batch * rows + row) * C + channels, mask


@triton.jit
def load(P, at, mask, dtype: tl.constexpr):
    if P is not None:
        return tl.load(P + at, mask=mask, other=0.0).to(dtype)


@triton.jit
def load_tile(P, tile, dtype: tl.constexpr):
    if P is not None:
        return tl.load(P + tile.start + tile.at, mask=tile.mask, other=0.0).to(dtype)


@triton.jit
def store_tile(P, value, tile):
    if P is not None:
        tl.store(P + tile.start + tile.at, rounded(value, P.dtype.element_ty), mask=tile.mask)


@triton.jit
def store(P, value, at, mask):
    if P is not None:
        tl.store(P + at, rounded(value, P.dtype.element_ty), mask=mask)


@triton.jit
def statistics(MEAN, VAR, SCALE, at, mask, EPS):
    # mean and rstd: (var + eps)^(-1/2), or without a variance 1 / scale
    mean = tl.load(MEAN + at, mask=mask, other=0.0)
    if SCALE is None:
        rstd = tl.load(VAR + at, mask=mask, other=1.0)
        rstd = tl.rsqrt(rstd + number(EPS, rstd.dtype))
    else:
        rstd = 1 / tl.load(SCALE + at, mask=mask, other=1.0)
    return mean, rstd


@triton.jit
def slope_of(rstd, w):
    # of u over x: rstd w
    if w is not None:
        rstd = rstd * w
    return rstd


@triton.jit
def preactivation(xhat, w, b, skip):
    # u = xhat w + b + skip
    u = affine(xhat, w, b)
    if skip is not None:
        u = u + skip
    return u


@triton.jit
def completed(u, gate, SLOPE, ACT: tl.constexpr):
    # act(u), or u act(gate)
    if gate is None:
        y = activation(u, ACT, SLOPE)
    else:
        y = u * activation(gate, ACT, SLOPE)
    return y


@triton.jit
def differentiated(t, xhat, w, b, tile, SLOPE, ACT: tl.constexpr):
    # du = dy act'(u); it is 0 outside the tensor, for dy is
    du = load_tile(t.dy, tile, xhat.dtype)
    if ACT != "identity":
        du = du * derivative(preactivation(xhat, w, b, load_tile(t.skip, tile, xhat.dtype)), ACT, SLOPE)
    return du


@triton.jit
def grads(t, w, b, mean, rstd, tile, SLOPE, ACT: tl.constexpr):
    # xhat, du, and the gradient of skip, which is du too, or of the gate
    xhat = (load_tile(t.x, tile, rstd.dtype) - mean) * rstd
    if t.gate is None:
        du = differentiated(t, xhat, w, b, tile, SLOPE, ACT)
        beside = du
    else:
        dy = load_tile(t.dy, tile, rstd.dtype)
        gate = load_tile(t.gate, tile, rstd.dtype)
        du = dy * activation(gate, ACT, SLOPE)
        beside = dy * affine(xhat, w, b) * derivative(gate, ACT, SLOPE)
    return xhat, du, beside
