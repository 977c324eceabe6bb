"""Channels, backward: dx = rstd (g - mean(g) - xhat mean(g xhat)), g = du w, du = dy act'(u).

Where mean and var are constants, dx = rstd g. Of y = u act(gate) du = dy act(gate) and dgate = dy u act'(gate).
"""

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.sums import finalise, sum_partials
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.tensors import Backward, act, tensors
from normkernels._backends.triton.channels.tiles import (
    aligned,
    broad,
    flat,
    grads,
    held,
    load,
    records,
    slope_of,
    statistics,
    store,
    store_tile,
    zeros,
)
from normkernels._backends.triton.channels.walks import place, step, walk, walk_back


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def channels_backward_kernel(
    t, C, S, G, PLANES, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    C, S = aligned(C, S, FORM)
    stat, there, channels, tile = held(C, S, G, PLANES, FORM)
    mean, rstd = statistics(t.mean, t.var, t.scale, stat, there, EPS)
    w = load(t.weight, channels, channels < C, rstd.dtype)
    b = load(t.bias if ACT != "identity" or t.gate is not None else None, channels, channels < C, rstd.dtype)
    xhat, du, beside = grads(t, broad(w, 3), broad(b, 3), broad(mean, 3), broad(rstd, 3), tile, SLOPE, ACT)
    store_tile(t.dskip, beside, tile)
    row = (tl.program_id(0) // tl.cdiv(G, FORM.BLOCK_A)).to(tl.int64) * C
    count = (PLANES * S).to(rstd.dtype)
    if FORM.IMAGES or FORM.BLOCK_K == 1:
        dw, db = both_sums(flat(du * xhat), flat(du))
        mean_gx, mean_g = affine(dw, w, None) / count, affine(db, w, None) / count
    else:
        there = there[:, None] & (tl.arange(0, FORM.BLOCK_K)[None, :] < PLANES)
        dw, db = tl.split(tl.sum(tl.join(du * xhat, du), axis=2))
        mean_gx, mean_g = both_sums(affine(dw, w, None), affine(db, w, None))
        mean_gx, mean_g = mean_gx / count, mean_g / count
    store(t.partial_w, dw, row + channels, there)
    store(t.partial_b, db, row + channels, there)
    dx = affine(du, broad(w, 3), None) - broad(mean_g, 3) - xhat * broad(mean_gx, 3)
    store_tile(t.dx, dx * broad(rstd, 3), tile)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def channels_sums_kernel(
    t, N, C, S, G, images, parts, steps, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, FORM)
    channels = low + tl.arange(0, FORM.BLOCK_A)
    stat = place(image, channels, C, G, images, FORM.POOLED)
    mean, rstd = statistics(t.mean, t.var, t.scale, stat, channels < C, EPS)
    mean = mean[:, None]
    rstd = rstd[:, None]
    w = broad(load(t.weight, channels, channels < C, dtype), 2)
    b = broad(load(t.bias if ACT != "identity" or t.gate is not None else None, channels, channels < C, dtype), 2)
    dw, db = zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype), zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        xhat, du, beside = grads(t, w, b, mean, rstd, tile, SLOPE, ACT)
        dw += du * xhat
        db += du
        # where mean and var are constants, this is all
        store_tile(t.dx, du * slope_of(rstd, w), tile)
        store_tile(t.dskip, beside, tile)
    store(t.partial_w, tl.sum(dw, axis=1), row * C + channels, channels < C)
    store(t.partial_b, tl.sum(db, axis=1), row * C + channels, channels < C)


@triton.jit(do_not_specialize=["B", "C", "G", "rows", "count"])
def channels_merge_sums_kernel(
    PARTIAL_W, PARTIAL_B, W, MEAN_GX, MEAN_G, DW, DB,  # partials as above, `rows` of each batch; means: (B, G)
    B, C, G, rows, count, FORM: tl.constexpr,
):  # fmt: skip
    BLOCK_R: tl.constexpr = FORM.BLOCK_R
    BLOCK_G: tl.constexpr = FORM.BLOCK_G
    means = B * tl.cdiv(G, BLOCK_G)
    if FORM.APART > 0 and tl.program_id(0) >= means:
        program, blocks = tl.program_id(0) - means, tl.cdiv(C, 8)
        second, block = program // blocks, program % blocks
        sum_partials(PARTIAL_W, PARTIAL_B, DW, DB, block, second, B * rows, C, FORM.APART, 8)
    else:
        dtype: tl.constexpr = PARTIAL_W.dtype.element_ty
        sum_gx, sum_g = zeros(BLOCK_R, BLOCK_G, dtype), zeros(BLOCK_R, BLOCK_G, dtype)
        for start in range(0, rows * (C // G), BLOCK_R):
            _, _, channels, at, mask = records(C, G, rows, start, FORM)
            w = load(W, channels, mask, dtype)
            sum_gx += affine(load(PARTIAL_W, at, mask, dtype), w, None)
            sum_g += affine(load(PARTIAL_B, at, mask, dtype), w, None)
        stat, there, _, _, _ = records(C, G, rows, 0, FORM)
        gx, g = tl.sum(sum_gx, axis=0), tl.sum(sum_g, axis=0)
        store(MEAN_GX, gx / count.to(dtype), stat, there)
        store(MEAN_G, g / count.to(dtype), stat, there)
        if FORM.APART == 0:  # with W absent and one channel to a statistic
            store(DW, gx, stat, there)
            store(DB, g, stat, there)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def channels_dx_kernel(
    t, N, C, S, G, images, parts, steps, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, image, first, tiles, channels, stat = walk_back(N, C, S, G, images, parts, steps, FORM)
    mean, rstd = statistics(t.mean, t.var, t.scale, stat, channels < C, EPS)
    mean = mean[:, None]
    rstd = rstd[:, None]
    w = broad(load(t.weight, channels, channels < C, dtype), 2)
    b = broad(load(t.bias if ACT != "identity" or t.gate is not None else None, channels, channels < C, dtype), 2)
    mean_gx = load(t.mean_gx, stat, channels < C, dtype)[:, None]
    mean_g = load(t.mean_g, stat, channels < C, dtype)[:, None]
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        xhat, du, beside = grads(t, w, b, mean, rstd, tile, SLOPE, ACT)
        store_tile(t.dskip, beside, tile)
        # of one channel the means are those of du; of several POOLED ones, whose weights differ, those of g
        if FORM.POOLED:
            dx = affine(du, w, None) - mean_g - xhat * mean_gx
        else:
            dx = affine(du - mean_g - xhat * mean_gx, w, None)
        store_tile(t.dx, dx * rstd, tile)


def walk_parts(t: Backward, a, z: sizes.Sizes) -> None:
    """Fill the partial sums; with dx, that and dskip too, for constant mean and var. a: the arguments of an op."""
    programs, given, constants = sizes.walking(z, sizes.split(z, sizes.BACKWARD_TILE), t.x, t.dy, t.skip, t.gate)
    channels_sums_kernel[(programs,)](t, *given, EPS=a.eps, SLOPE=a.slope, ACT=act(a), **constants)


def merge(partial_w, partial_b, weight, mean_gx, mean_g, dweight, dbias, z: sizes.Sizes, apart: bool = False) -> None:
    """Fill the means over each statistic, and dweight and dbias: the sums of a statistic, or apart those of all."""
    rows = partial_w.shape[0] // z.B
    wanted = (dweight is not None) + (dbias is not None) if apart else 0
    programs, tile = sizes.merging(z, rows, wanted)
    channels_merge_sums_kernel[(programs,)](
        partial_w, partial_b, weight, mean_gx, mean_g, dweight, dbias, z.B, z.C, z.G, rows, z.planes * z.S, **tile
    )


def spread(t: Backward, a, z: sizes.Sizes) -> None:
    """Fill dx and dskip from the means over each statistic."""
    s = sizes.split(z, sizes.BACKWARD_TILE, sizes.STEPS)
    programs, given, constants = sizes.walking(z, s, t.x, t.dy, t.skip, t.gate)
    channels_dx_kernel[(programs,)](t, *given, EPS=a.eps, SLOPE=a.slope, ACT=act(a), **constants)


def workspace(mean: Tensor, z: sizes.Sizes) -> tuple[Tensor, Tensor]:
    """Partial sums (rows, C) of du xhat and of du."""
    rows = sizes.parts(z, sizes.split(z, sizes.BACKWARD_TILE))[1]
    return accumulator(mean, rows, z.C), accumulator(mean, rows, z.C)


def sums(t: Backward, a, sum_gx: Tensor, sum_g: Tensor) -> None:
    """Fill the sums over each channel of du xhat and of du."""
    z = sizes.of(t.x, t.mean, a.channels_last)
    partial_w, partial_b = workspace(t.mean, z)
    walk_parts(t._replace(partial_w=partial_w, partial_b=partial_b), a, z)
    merge(partial_w, partial_b, None, None, None, sum_gx, sum_g, z)


def backward(a, training: bool) -> None:
    """Fill dx, dskip, dweight and dbias. Statistics that a program holds are read once, larger ones again, from L2."""
    z, t = sizes.of(a.x, a.mean, a.channels_last), tensors(a)
    tile = sizes.resident(z, sizes.BACKWARD_LIMIT, 1 if a.activation == "identity" else 2) if training else None
    if tile:
        # the partial sums of a single batch are all
        partial = [g if g is None or z.B == 1 else accumulator(a.mean, z.B, z.C) for g in (a.dweight, a.dbias)]
        programs, given, constants = sizes.holding(a.x, z, tile)
        t = t._replace(partial_w=partial[0], partial_b=partial[1], dx=a.dx, dskip=a.dskip)
        channels_backward_kernel[(programs,)](t, *given, EPS=a.eps, SLOPE=a.slope, ACT=act(a), **constants)
        if z.B > 1:
            finalise(*partial, a.dweight, a.dbias)
        return
    partial = workspace(a.mean, z)
    summed = t._replace(partial_w=partial[0], partial_b=partial[1])
    if not training:
        walk_parts(summed._replace(dx=a.dx, dskip=a.dskip), a, z)
        finalise(*partial, a.dweight, a.dbias)
        return
    walk_parts(summed, a, z)
    means = accumulator(a.mean, z.B, z.G), accumulator(a.mean, z.B, z.G)
    # where a statistic is a channel, its sums are the channel's gradients, and the weight is put in later
    weight, alone = a.weight if z.C > z.G else None, z.B == 1 and z.C == z.G
    merge(*partial, weight, *means, a.dweight, a.dbias, z, apart=not alone)
    spread(t._replace(mean_gx=means[0], mean_g=means[1], dx=a.dx, dskip=a.dskip), a, z)
