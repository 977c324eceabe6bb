"""Scan, backward: dx = (dz w - p e xhat) rstd - p u, dz the gradient at z, e and u the accumulators a sample meets.

Where mean and rstd are constants, dx = dz w rstd.
"""

import triton
import triton.language as tl

from normkernels.backends.triton.base.launch import accumulator
from normkernels.backends.triton.base.values import affine
from normkernels.backends.triton.channels.backward import merge
from normkernels.backends.triton.channels.sizes import BACKWARD_TILE, STEPS, parts, sizes, split, walking
from normkernels.backends.triton.channels.tiles import (
    aligned,
    broad,
    load,
    load_tile,
    place,
    step,
    store,
    store_tile,
    walk,
)
from normkernels.backends.triton.online.sizes import averaging, scanning, valuing
from normkernels.backends.triton.online.tiles import (
    averages,
    chained,
    finite,
    gradient,
    last_row,
    of_sample,
    table,
    unscaled,
    values,
)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def online_sums_kernel(
    DY, X, SKIP, W, B, MEAN, RSTD, GAIN, PARTIAL_GX, PARTIAL_G,  # partials: (rows, C), sums of dz xhat and of dz
    N, C, S, G, images, parts, steps, CLAMP: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.float64,
    IMAGES: tl.constexpr, POOLED: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, IMAGES, BLOCK_A, BLOCK_B)
    channels = low + tl.arange(0, BLOCK_A)
    stat = place(image, channels, C, G, images, POOLED)
    mean, rstd = load(MEAN, stat, channels < C, dtype)[:, None], load(RSTD, stat, channels < C, dtype)[:, None]
    w = broad(load(W, channels, channels < C, dtype), 2)
    b = broad(load(B, channels, channels < C, dtype), 2)
    gain = of_sample(GAIN, image)
    gx, g = tl.zeros([BLOCK_A, BLOCK_B], dtype), tl.zeros([BLOCK_A, BLOCK_B], dtype)
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        xhat = (load_tile(X, tile, dtype) - mean) * rstd
        skip = load_tile(SKIP, tile, dtype)
        _, _, dz = gradient(load_tile(DY, tile, dtype), xhat, w, b, gain, skip, CLAMP, ACT, SLOPE)
        gx += dz * xhat
        g += dz
    store(PARTIAL_GX, tl.sum(gx, axis=1), row * C + channels, channels < C)
    store(PARTIAL_G, tl.sum(g, axis=1), row * C + channels, channels < C)


@triton.jit(do_not_specialize=["N", "C"])
def online_sums_values_kernel(
    DY, X, SKIP, W, B, MEAN, RSTD, GAIN, SUM_G, DSKIP, N, C, CLAMP: tl.constexpr, ACT: tl.constexpr,
    SLOPE: tl.float64, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    # samples of one value: dz, and dskip
    dtype: tl.constexpr = MEAN.dtype.element_ty
    samples, channels, tile = values(N, C, ALIGN, BLOCK_A, BLOCK_B)
    xhat = (load_tile(X, tile, dtype) - load_tile(MEAN, tile, dtype)) * load_tile(RSTD, tile, dtype)
    w = load(W, channels, channels < C, dtype)
    b = load(B, channels, channels < C, dtype)
    gain = load(GAIN, samples, samples < N, dtype)
    skip = load_tile(SKIP, tile, dtype)
    _, du, dz = gradient(load_tile(DY, tile, dtype), xhat, w, b, gain, skip, CLAMP, ACT, SLOPE)
    store_tile(SUM_G, dz, tile)
    store_tile(DSKIP, du, tile)


@triton.jit(do_not_specialize=["C", "count"])
def online_kappa_kernel(
    SUM_GX, SUM_G, X, MEAN, RSTD, W, B, GAIN, KAPPA, C, count, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr
):  # fmt: skip
    # kappa = mean(dz z gain) over a sample, `count` values of each channel; sums of dz xhat and of dz: (N, C)
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C = C // ALIGN * ALIGN
    sample = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK_A], dtype)
    for low in range(0, C, BLOCK_A):
        channels = low + tl.arange(0, BLOCK_A)
        there, at = channels < C, sample * C + channels
        g = load(SUM_G, at, there, dtype)
        gx = dotted(SUM_GX, X, MEAN, RSTD, g, at, there)
        total += affine(gx, load(W, channels, there, dtype), None)
        if B is not None:
            total += g * load(B, channels, there, dtype)
    tl.store(KAPPA + sample, tl.sum(total, axis=0) * tl.load(GAIN + sample) / (C.to(dtype) * count.to(dtype)))


@triton.jit
def dotted(SUM_GX, X, MEAN, RSTD, g, at, mask):
    # the sum of dz xhat over a sample
    if SUM_GX is None:
        gx = (load(X, at, mask, g.dtype) - load(MEAN, at, mask, g.dtype)) * load(RSTD, at, mask, g.dtype) * g
    else:
        gx = load(SUM_GX, at, mask, g.dtype)
    return gx


@triton.jit(do_not_specialize=["N", "C", "count"])
def online_control_kernel(
    SUM_GX, SUM_G, X, MEAN, RSTD, XHAT_MEAN, XHAT_SQUARE, W, B, GAIN, KAPPA, E, U, PE, PU, NEW_E, NEW_U, DW, DB,
    N, C, count, P: tl.constexpr, STABLE: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_A: tl.constexpr,
):  # fmt: skip
    # pe, pu: (N, C), the accumulators that a sample meets, times p; sums as above
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C = C // ALIGN * ALIGN
    channels = tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)[None, :]
    w = load(W, channels, channels < C, dtype)
    b = load(B, channels, channels < C, dtype)
    e = load(E, channels, channels < C, tl.float64)
    u = load(U, channels, channels < C, tl.float64)
    share = 1 / count.to(dtype)
    dw, db = tl.zeros([BLOCK_B, BLOCK_A], dtype), tl.zeros([BLOCK_B, BLOCK_A], dtype)
    for start in range(0, N + 1, BLOCK_B):
        samples, channels, at, there = table(start, N, C, BLOCK_B, BLOCK_A)
        past = (samples > 0) & (samples <= N) & (channels < C)
        at -= C
        g = load(SUM_G, at, past, dtype)
        gx = dotted(SUM_GX, X, MEAN, RSTD, g, at, past) * share
        g *= share
        rstd, xhat, square = averages(X, MEAN, RSTD, XHAT_MEAN, XHAT_SQUARE, at, past, dtype)
        if GAIN is not None:
            some = (samples > 0) & (samples <= N)
            gain = load(GAIN, samples - 1, some, dtype)
            kappa = load(KAPPA, samples - 1, some, dtype)
            g, gx = scaled(g, gx, xhat, square, w, b, gain, kappa)
        dw += gx
        db += g
        if E is not None:
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
            store(NEW_E, met_e, final, past & (samples == N))
            store(NEW_U, met_u, final, past & (samples == N))
            e, u = last_row(met_e), last_row(met_u)
            at += C
            if STABLE:
                rstd, xhat, square = averages(X, MEAN, RSTD, XHAT_MEAN, XHAT_SQUARE, at, there, dtype)
            store(PE, damping(square, P, STABLE) * met_e, at, there)
            store(PU, P * met_u, at, there)
    store(DW, tl.sum(dw, axis=0)[None, :] * count.to(dtype), channels, channels < C)
    store(DB, tl.sum(db, axis=0)[None, :] * count.to(dtype), channels, channels < C)


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


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def online_dx_kernel(
    DY, X, SKIP, W, B, MEAN, RSTD, GAIN, KAPPA, PE, PU, DX, DSKIP, N, C, S, G, images, parts, steps,
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
    mean, rstd = load(MEAN, stat, channels < C, dtype)[:, None], load(RSTD, stat, channels < C, dtype)[:, None]
    w = broad(load(W, channels, channels < C, dtype), 2)
    b = broad(load(B, channels, channels < C, dtype), 2)
    pe = broad(load(PE, stat, channels < C, dtype), 2)
    pu = broad(load(PU, stat, channels < C, dtype), 2)
    gain = of_sample(GAIN, image)
    kappa = of_sample(KAPPA, image)
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        xhat = (load_tile(X, tile, dtype) - mean) * rstd
        skip = load_tile(SKIP, tile, dtype)
        z, du, dz = gradient(load_tile(DY, tile, dtype), xhat, w, b, gain, skip, CLAMP, ACT, SLOPE)
        store_tile(DSKIP, du, tile)
        store_tile(DX, controlled(unscaled(dz, z, gain, kappa), xhat, w, rstd, pe, pu), tile)


@triton.jit(do_not_specialize=["N", "C"])
def online_dx_values_kernel(
    SUM_G, X, W, B, MEAN, RSTD, GAIN, KAPPA, PE, PU, DX,
    N, C, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = MEAN.dtype.element_ty
    samples, channels, tile = values(N, C, ALIGN, BLOCK_A, BLOCK_B)
    rstd = load_tile(RSTD, tile, dtype)
    w = load(W, channels, channels < C, dtype)
    xhat = (load_tile(X, tile, dtype) - load_tile(MEAN, tile, dtype)) * rstd
    z = affine(xhat, w, load(B, channels, channels < C, dtype))
    gain = load(GAIN, samples, samples < N, dtype)
    kappa = load(KAPPA, samples, samples < N, dtype)
    dz = unscaled(load_tile(SUM_G, tile, dtype), z, gain, kappa)
    store_tile(DX, controlled(dz, xhat, w, rstd, load_tile(PE, tile, dtype), load_tile(PU, tile, dtype)), tile)


@triton.jit
def controlled(dz, xhat, w, rstd, pe, pu):
    # dx, from the gradient at z
    dx = affine(dz, w, None)
    if pe is not None:
        dx = (dx - pe * xhat) * rstd - pu
    else:
        dx = dx * rstd
    return dx


def sample_sums(dy, x, skip, weight, bias, mean, rstd, gain, dskip, given, last):
    """Tables (N, C), sums over a sample of dz xhat and of dz. Of samples of one value: None and dz; fills dskip."""
    N, C = mean.shape
    if x.numel() == mean.numel():
        programs, tile = valuing(x, mean)
        sum_g = accumulator(mean, N, C)
        online_sums_values_kernel[(programs,)](
            dy, x, skip, weight, bias, mean, rstd, gain, sum_g, dskip, N, C, **given, **tile
        )  # fmt: skip
        return None, sum_g
    z = sizes(x, mean, last)
    s = split(z, BACKWARD_TILE)
    partial = [accumulator(mean, parts(z, s)[1], C) for _ in range(2)]
    programs, walked, tile = walking(x, z, s)
    online_sums_kernel[(programs,)](dy, x, skip, weight, bias, mean, rstd, gain, *partial, *walked, **given, **tile)
    if len(partial[0]) == N:
        return partial
    sums = accumulator(mean, N, C), accumulator(mean, N, C)
    merge(*partial, None, None, None, *sums, z)
    return sums


def backward(
    dy, x, skip, weight, bias, mean, rstd, xhat_mean, xhat_square, gain, epsilon_y, epsilon_1, dx, dskip,
    dweight, dbias, new_epsilon_y, new_epsilon_1, alpha, stable, clamp, activation, slope, last,
):  # fmt: skip
    """Fill dx, dskip, dweight, dbias and the new accumulators: sums over each sample, the control process, then dx."""
    N, C = mean.shape
    given = {"CLAMP": clamp, "ACT": activation, "SLOPE": slope}
    sum_gx, sum_g = sample_sums(dy, x, skip, weight, bias, mean, rstd, gain, dskip, given, last)
    count = x.numel() // mean.numel()
    kappa, pe, pu = None, None, None
    if gain is not None:
        kappa = accumulator(mean, N)
        programs, tile = averaging(mean)
        online_kappa_kernel[(programs,)](sum_gx, sum_g, x, mean, rstd, weight, bias, gain, kappa, C, count, **tile)
    if epsilon_y is not None:
        pe, pu = accumulator(mean, N, C), accumulator(mean, N, C)
    if epsilon_y is not None or dweight is not None or dbias is not None:
        programs, tile = scanning(mean)
        online_control_kernel[(programs,)](
            sum_gx, sum_g, x, mean, rstd, xhat_mean, xhat_square, weight, bias, gain, kappa, epsilon_y, epsilon_1,
            pe, pu, new_epsilon_y, new_epsilon_1, dweight, dbias, N, C, count, P=1 - alpha, STABLE=stable, **tile,
        )  # fmt: skip
    if sum_gx is None:
        programs, tile = valuing(x, mean)
        online_dx_values_kernel[(programs,)](
            sum_g, x, weight, bias, mean, rstd, gain, kappa, pe, pu, dx, N, C, **tile
        )  # fmt: skip
        return
    z = sizes(x, mean, last)
    programs, walked, tile = walking(x, z, split(z, BACKWARD_TILE, STEPS))
    online_dx_kernel[(programs,)](
        dy, x, skip, weight, bias, mean, rstd, gain, kappa, pe, pu, dx, dskip, *walked, **given, **tile
    )
