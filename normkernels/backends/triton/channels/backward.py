"""Channels, backward: dx = rstd (g - mean(g) - xhat mean(g xhat)), g = du w, du = dy act'(u).

Where mean and var are constants, dx = rstd g.
"""

import triton
import triton.language as tl

from normkernels.backends.triton.base.launch import accumulator
from normkernels.backends.triton.base.sums import finalise
from normkernels.backends.triton.base.values import affine
from normkernels.backends.triton.channels.sizes import (
    BACKWARD_LIMIT,
    BACKWARD_TILE,
    STEPS,
    deviation,
    holding,
    merging,
    parts,
    resident,
    sizes,
    split,
    walking,
)
from normkernels.backends.triton.channels.tiles import (
    aligned,
    broad,
    grads,
    held,
    load,
    place,
    records,
    slope_of,
    statistics,
    step,
    store,
    store_tile,
    walk,
)


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def channels_backward_kernel(
    DY, X, SKIP, W, B, MEAN, VAR, DX, DSKIP, PARTIAL_W, PARTIAL_B,  # as in the schema; partials: (B, C)
    C, S, G, PLANES, EPS: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
    IMAGES: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    C, S = aligned(C, S, LAST, ALIGN)
    stat, there, channels, tile = held(C, S, G, PLANES, IMAGES, LAST, ALIGN, BLOCK_A, BLOCK_K, BLOCK_B)
    mean, rstd = statistics(MEAN, VAR, stat, there, EPS)
    w = load(W, channels, channels < C, rstd.dtype)
    b = load(B if ACT != "identity" else None, channels, channels < C, rstd.dtype)
    xhat, du = grads(DY, X, SKIP, broad(w, 3), broad(b, 3), broad(mean, 3), broad(rstd, 3), tile, ACT, SLOPE)
    store_tile(DSKIP, du, tile)
    dw, db = tl.sum(du * xhat, axis=2), tl.sum(du, axis=2)
    row = (tl.program_id(0) // tl.cdiv(G, BLOCK_A)).to(tl.int64) * C
    count = (PLANES * S).to(rstd.dtype)
    if IMAGES or BLOCK_K == 1:
        dw, db = tl.sum(dw, axis=1), tl.sum(db, axis=1)
        mean_gx, mean_g = affine(dw, w, None) / count, affine(db, w, None) / count
    else:
        there = there[:, None] & (tl.arange(0, BLOCK_K)[None, :] < PLANES)
        mean_gx, mean_g = tl.sum(affine(dw, w, None), axis=1) / count, tl.sum(affine(db, w, None), axis=1) / count
    store(PARTIAL_W, dw, row + channels, there)
    store(PARTIAL_B, db, row + channels, there)
    dx = affine(du, broad(w, 3), None) - broad(mean_g, 3) - xhat * broad(mean_gx, 3)
    store_tile(DX, dx * broad(rstd, 3), tile)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def channels_sums_kernel(
    DY, X, SKIP, W, B, MEAN, VAR, PARTIAL_W, PARTIAL_B, DX, DSKIP,  # partials: (rows, C), sums of du xhat and of du
    N, C, S, G, images, parts, steps, EPS: tl.float64, SCALED: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.float64,
    IMAGES: tl.constexpr, POOLED: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = MEAN.dtype.element_ty
    C, S = aligned(C, S, LAST, ALIGN)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, IMAGES, BLOCK_A, BLOCK_B)
    channels = low + tl.arange(0, BLOCK_A)
    stat = place(image, channels, C, G, images, POOLED)
    mean, rstd = statistics(MEAN, VAR, stat, channels < C, None if SCALED else EPS)
    mean = mean[:, None]
    rstd = rstd[:, None]
    w = broad(load(W, channels, channels < C, dtype), 2)
    b = broad(load(B if ACT != "identity" else None, channels, channels < C, dtype), 2)
    dw, db = tl.zeros([BLOCK_A, BLOCK_B], dtype), tl.zeros([BLOCK_A, BLOCK_B], dtype)
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        xhat, du = grads(DY, X, SKIP, w, b, mean, rstd, tile, ACT, SLOPE)
        dw += du * xhat
        db += du
        # where mean and var are constants, this is all
        store_tile(DX, du * slope_of(rstd, w), tile)
        store_tile(DSKIP, du, tile)
    store(PARTIAL_W, tl.sum(dw, axis=1), row * C + channels, channels < C)
    store(PARTIAL_B, tl.sum(db, axis=1), row * C + channels, channels < C)


@triton.jit(do_not_specialize=["C", "G", "rows", "count"])
def channels_merge_sums_kernel(
    PARTIAL_W, PARTIAL_B, W, MEAN_GX, MEAN_G, DW, DB,  # partials as above, `rows` of each batch; means: (B, G)
    C, G, rows, count, BLOCK_R: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = PARTIAL_W.dtype.element_ty
    sum_gx, sum_g = tl.zeros([BLOCK_R, BLOCK_G], dtype), tl.zeros([BLOCK_R, BLOCK_G], dtype)
    for start in range(0, rows * (C // G), BLOCK_R):
        _, _, _, channels, at, mask = records(C, G, rows, start, BLOCK_R, BLOCK_G)
        w = load(W, channels, mask, dtype)
        sum_gx += affine(load(PARTIAL_W, at, mask, dtype), w, None)
        sum_g += affine(load(PARTIAL_B, at, mask, dtype), w, None)
    stat, there, _, _, _, _ = records(C, G, rows, 0, BLOCK_R, BLOCK_G)
    gx, g = tl.sum(sum_gx, axis=0), tl.sum(sum_g, axis=0)
    store(MEAN_GX, gx / count.to(dtype), stat, there)
    store(MEAN_G, g / count.to(dtype), stat, there)
    # with W absent and one channel to a statistic
    store(DW, gx, stat, there)
    store(DB, g, stat, there)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def channels_dx_kernel(
    DY, X, SKIP, W, B, MEAN, VAR, MEAN_GX, MEAN_G, DX, DSKIP,  # as in the schema; means as above
    N, C, S, G, images, parts, steps, EPS: tl.float64, ACT: tl.constexpr, SLOPE: tl.float64,
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
    mean, rstd = statistics(MEAN, VAR, stat, channels < C, EPS)
    mean = mean[:, None]
    rstd = rstd[:, None]
    w = broad(load(W, channels, channels < C, dtype), 2)
    b = broad(load(B if ACT != "identity" else None, channels, channels < C, dtype), 2)
    mean_gx = load(MEAN_GX, stat, channels < C, dtype)[:, None]
    mean_g = load(MEAN_G, stat, channels < C, dtype)[:, None]
    for i in tl.range(0, tiles, num_stages=2):
        tile = step(i, low, image, first, C, S, IMAGES, LAST, BLOCK_A, BLOCK_B)
        xhat, du = grads(DY, X, SKIP, w, b, mean, rstd, tile, ACT, SLOPE)
        store_tile(DSKIP, du, tile)
        # of one channel the means are those of du; of several POOLED ones, whose weights differ, those of g
        if POOLED:
            dx = affine(du, w, None) - mean_g - xhat * mean_gx
        else:
            dx = affine(du - mean_g - xhat * mean_gx, w, None)
        store_tile(DX, dx * rstd, tile)


def walk_parts(dy, x, skip, weight, bias, mean, var, partial_w, partial_b, dx, dskip, eps, activation, slope, z):
    """Fill the partial sums (rows, C); with dx, that and dskip too, for constant mean and var."""
    programs, given, constants = walking(x, z, split(z, BACKWARD_TILE))
    channels_sums_kernel[(programs,)](
        dy, x, skip, weight, bias, mean, var, partial_w, partial_b, dx, dskip, *given,
        **deviation(eps), ACT=activation, SLOPE=slope, **constants,
    )  # fmt: skip


def merge(partial_w, partial_b, weight, mean_gx, mean_g, dweight, dbias, z):
    """Fill the means over each statistic, and where it is one channel's, dweight and dbias."""
    rows = partial_w.shape[0] // z.B
    programs, tile = merging(z, rows)
    channels_merge_sums_kernel[(programs,)](
        partial_w, partial_b, weight, mean_gx, mean_g, dweight, dbias, z.C, z.G, rows, z.planes * z.S, **tile
    )


def spread(dy, x, skip, weight, bias, mean, var, mean_gx, mean_g, dx, dskip, eps, activation, slope, z):
    """Fill dx and dskip from the means over each statistic."""
    programs, given, constants = walking(x, z, split(z, BACKWARD_TILE, STEPS))
    channels_dx_kernel[(programs,)](
        dy, x, skip, weight, bias, mean, var, mean_gx, mean_g, dx, dskip, *given,
        EPS=eps, ACT=activation, SLOPE=slope, **constants,
    )  # fmt: skip


def workspace(mean, z):
    """Partial sums (rows, C) of du xhat and of du."""
    rows = parts(z, split(z, BACKWARD_TILE))[1]
    return accumulator(mean, rows, z.C), accumulator(mean, rows, z.C)


def sums(dy, x, skip, weight, bias, mean, var, sum_dy, sum_dy_xhat, eps, activation, slope, last):
    """Fill the sums over each channel of du and of du xhat."""
    z = sizes(x, mean, last)
    partial = workspace(mean, z)
    walk_parts(dy, x, skip, weight, bias, mean, var, *partial, None, None, eps, activation, slope, z)
    merge(*partial, None, None, None, sum_dy_xhat, sum_dy, z)


def dx_from_means(
    dy, x, skip, weight, bias, mean, var, mean_dy, mean_dy_xhat, dx, dskip, eps, activation, slope, last
):  # fmt: skip
    """Fill dx and dskip, with the means of du and du xhat given for each channel."""
    z = sizes(x, mean, last)
    spread(dy, x, skip, weight, bias, mean, var, mean_dy_xhat, mean_dy, dx, dskip, eps, activation, slope, z)


def backward(
    dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, eps, training, activation, slope, last
):  # fmt: skip
    """Fill dx, dskip, dweight and dbias. Statistics that a program holds are read once, larger ones again, from L2."""
    z = sizes(x, mean, last)
    given = dy, x, skip, weight, bias, mean, var
    tile = resident(z, BACKWARD_LIMIT, 1 if activation == "identity" else 2) if training else None
    if tile:
        # the partial sums of a single batch are all
        partial = [g if g is None or z.B == 1 else accumulator(mean, z.B, z.C) for g in (dweight, dbias)]
        programs, sizes_given, constants = holding(x, z, tile)
        channels_backward_kernel[(programs,)](
            *given, dx, dskip, *partial, *sizes_given, EPS=eps, ACT=activation, SLOPE=slope, **constants
        )
        if z.B > 1:
            finalise(*partial, dweight, dbias)
    elif training:
        partial, means = workspace(mean, z), (accumulator(mean, z.B, z.G), accumulator(mean, z.B, z.G))
        walk_parts(*given, *partial, None, None, eps, activation, slope, z)
        # where a statistic is a channel, its sums are the channel's gradients, and the weight is put in later
        alone = z.B == 1 and z.C == z.G
        merge(*partial, weight if z.C > z.G else None, *means, *((dweight, dbias) if alone else (None, None)), z)
        spread(*given, *means, dx, dskip, eps, activation, slope, z)
        if not alone:
            finalise(*partial, dweight, dbias)
    else:
        partial = workspace(mean, z)
        walk_parts(*given, *partial, dx, dskip, eps, activation, slope, z)
        finalise(*partial, dweight, dbias)
