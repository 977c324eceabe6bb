"""Online, backward: the control process, a chain of affine maps of the accumulators e and u over the samples."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels.tiles import load, store
from normkernels._backends.triton.online.sums import dotted
from normkernels._backends.triton.online.tiles import averages, chained, finite, last_row, table


class Control(NamedTuple):
    """As in the schema; sums, pe, pu: (N, C); kappa: (N,); epsilon_y, epsilon_1 are e and u."""

    sum_gx: Tensor | None
    sum_g: Tensor
    x: Tensor
    mean: Tensor
    rstd: Tensor
    xhat_mean: Tensor | None
    xhat_square: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    gain: Tensor | None
    kappa: Tensor | None
    epsilon_y: Tensor | None
    epsilon_1: Tensor | None
    pe: Tensor | None
    pu: Tensor | None
    new_epsilon_y: Tensor | None
    new_epsilon_1: Tensor | None
    dweight: Tensor | None
    dbias: Tensor | None


@triton.jit(do_not_specialize=["N", "C", "count"])
def online_control_kernel(
    t, N, C, count, P: tl.constexpr, STABLE: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    C = C // ALIGN * ALIGN
    channels = tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)[None, :]
    w = load(t.weight, channels, channels < C, dtype)
    b = load(t.bias, channels, channels < C, dtype)
    e = load(t.epsilon_y, channels, channels < C, tl.float64)
    u = load(t.epsilon_1, channels, channels < C, tl.float64)
    share = 1 / count.to(dtype)
    dw, db = tl.zeros([BLOCK_B, BLOCK_A], dtype), tl.zeros([BLOCK_B, BLOCK_A], dtype)
    for start in range(0, N + 1, BLOCK_B):
        samples, channels, at, there = table(start, N, C, BLOCK_B, BLOCK_A)
        past = (samples > 0) & (samples <= N) & (channels < C)
        at -= C
        g = load(t.sum_g, at, past, dtype)
        gx = dotted(t, g, at, past) * share
        g *= share
        rstd, xhat, square = averages(t, at, past, dtype)
        if t.gain is not None:
            some = (samples > 0) & (samples <= N)
            gain = load(t.gain, samples - 1, some, dtype)
            kappa = load(t.kappa, samples - 1, some, dtype)
            g, gx = scaled(g, gx, xhat, square, w, b, gain, kappa)
        dw += gx
        db += g
        if t.epsilon_y is not None:
            g, gx = affine(g, w, None), affine(gx, w, None)
            counts = finite(square) & finite(g) & finite(gx) & past
            p = damping(square, P, STABLE)
            one = tl.full(at.shape, 1.0, tl.float64)
            of_e, add_e, e_of_u, of_u, add_u = tl.associative_scan(
                (
                    tl.where(counts, 1 - p * square.to(tl.float64), one),
                    tl.where(counts, gx.to(tl.float64), 0.0),
                    tl.where(counts, -p * (xhat * rstd).to(tl.float64), 0.0),
                    tl.where(counts, 1 - P, one),
                    tl.where(counts, (g * rstd).to(tl.float64), 0.0),
                ),
                0,
                chained,
            )
            met_e, met_u = of_e * e + add_e, e_of_u * e + of_u * u + add_u
            final = at - (N - 1).to(tl.int64) * C
            store(t.new_epsilon_y, met_e, final, past & (samples == N))
            store(t.new_epsilon_1, met_u, final, past & (samples == N))
            e, u = last_row(met_e), last_row(met_u)
            at += C
            if STABLE:
                rstd, xhat, square = averages(t, at, there, dtype)
            store(t.pe, damping(square, P, STABLE) * met_e, at, there)
            store(t.pu, P * met_u, at, there)
    store(t.dweight, tl.sum(dw, axis=0)[None, :] * count.to(dtype), channels, channels < C)
    store(t.dbias, tl.sum(db, axis=0)[None, :] * count.to(dtype), channels, channels < C)


@triton.jit
def scaled(g, gx, xhat, square, w, b, gain, kappa):
    # means of dz and of dz xhat, through z gain (eq. 10)
    scale = kappa * gain
    z, zx = affine(xhat, w, b), affine(square, w, None)
    if b is not None:
        zx = zx + b * xhat
    return (g - scale * z) * gain, (gx - scale * zx) * gain


@triton.jit
def damping(square, P: tl.constexpr, STABLE: tl.constexpr):
    # p where it meets xhat: min(p, 1 / square)
    p = tl.full(square.shape, P, tl.float64)
    if STABLE:
        most = (1 / tl.where(square < 1, 1.0, square)).to(tl.float64)
        p = tl.where(most >= p, p, most)
    return p
