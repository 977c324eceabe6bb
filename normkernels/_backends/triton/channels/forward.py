"""Channels, forward: y = act((x - mean) rstd w + b + skip), rstd = (var + eps)^(-1/2)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.pairs import both_sums
from normkernels._backends.triton.base.values import number
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.tensors import Forward, act, filled
from normkernels._backends.triton.channels.tiles import (
    aligned,
    broad,
    completed,
    held,
    load,
    load_tile,
    moments_of,
    preactivation,
    records,
    slope_of,
    statistics,
    store_tile,
    zeros,
)
from normkernels._backends.triton.channels.walks import step, walk, walk_back, walked


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def channels_forward_kernel(
    t, C, S, G, PLANES, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    C, S = aligned(C, S, FORM)
    stat, there, channels, tile = held(C, S, G, PLANES, FORM)
    count = (PLANES * S).to(dtype)
    x, mean, var = moments_of(load_tile(t.x, tile, dtype), tile.mask, count)
    tl.store(t.mean + stat, mean, mask=there)
    tl.store(t.var + stat, var, mask=there)
    if t.y is not None:
        w = broad(load(t.weight, channels, channels < C, dtype), 3)
        b = broad(load(t.bias, channels, channels < C, dtype), 3)
        slope = slope_of(broad(tl.rsqrt(var + number(EPS, dtype)), 3), w)
        u = preactivation(x, slope, b, load_tile(t.skip, tile, dtype))
        store_tile(t.y, completed(u, load_tile(t.gate, tile, dtype), SLOPE, ACT), tile)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def channels_moments_kernel(
    X, PARTIAL, N, C, S, G, images, parts, steps,  # partial, (4, rows, C): mean, what rounding left, squares, values
    FORM: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = PARTIAL.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, FORM)
    # Welford in every lane of the tile, about the lane's first value, so that nothing is lost where x is far from 0
    tile = step(0, low, image, first, N, C, S, FORM)
    x = load_tile(X, tile, dtype)
    move, squares = zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype), zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype)
    seen = tl.full([1, 1], 1.0, dtype)
    for i in tl.range(1, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        away = tl.where(tile.mask, load_tile(X, tile, dtype) - x - move, 0.0)
        seen += 1.0
        move += away * (1 / seen)
        squares += away * away * (1 - 1 / seen)
    # Chan: the lanes' sums of squares, and their means' squared distances from the mean of all
    count, each = walked(first, tiles, N, S, FORM)
    count, each = count.to(dtype), each.to(dtype)
    mean = tl.sum((x + move) * each, axis=1) / count
    distance = x - mean[:, None] + move
    rest, squares = both_sums(distance * each, squares + distance * distance * each)
    rest = rest / count
    # of the squares about the first mean, what those about the second one lack is within their rounding
    squares = tl.maximum(squares - rest * rest * count, 0.0, propagate_nan=tl.PropagateNan.ALL)
    channels = low + tl.arange(0, FORM.BLOCK_A)
    table = (tl.num_programs(0) // tl.cdiv(C, FORM.BLOCK_A)).to(tl.int64) * C
    tl.store(PARTIAL + row * C + channels, mean, mask=channels < C)
    tl.store(PARTIAL + table + row * C + channels, rest, mask=channels < C)
    tl.store(PARTIAL + table * 2 + row * C + channels, squares, mask=channels < C)
    tl.store(PARTIAL + table * 3 + row * C + channels, count, mask=channels < C)


@triton.jit(do_not_specialize=["C", "G", "rows", "table", "total"])
def channels_merge_moments_kernel(
    PARTIAL, MEAN, VAR,  # partial: as above, `table` rows, `rows` of each batch; total: values of a statistic
    C, G, rows, table, total, FORM: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = PARTIAL.dtype.element_ty
    table = table.to(tl.int64) * C
    sum_mean = zeros(FORM.BLOCK_R, FORM.BLOCK_G, dtype)
    for start in range(0, rows * (C // G), FORM.BLOCK_R):
        _, _, _, at, mask = records(C, G, rows, start, FORM)
        sum_mean += load(PARTIAL, at, mask, dtype) * load(PARTIAL + table * 3, at, mask, dtype)
    mean = tl.sum(sum_mean, axis=0) / total.to(dtype)
    # Chan: the sums of squares, and the means' squared distances from the mean of all
    sum_distance, sum_squares = zeros(FORM.BLOCK_R, FORM.BLOCK_G, dtype), zeros(FORM.BLOCK_R, FORM.BLOCK_G, dtype)
    for start in range(0, rows * (C // G), FORM.BLOCK_R):
        _, _, _, at, mask = records(C, G, rows, start, FORM)
        count = load(PARTIAL + table * 3, at, mask, dtype)
        distance = load(PARTIAL, at, mask, dtype) - mean[None, :]
        distance += load(PARTIAL + table, at, mask, dtype)
        sum_distance += distance * count
        sum_squares += distance * distance * count + load(PARTIAL + table * 2, at, mask, dtype)
    rest = tl.sum(sum_distance, axis=0) / total.to(dtype)
    var = tl.sum(sum_squares, axis=0) / total.to(dtype) - rest * rest
    stat, there, _, _, _ = records(C, G, rows, 0, FORM)
    tl.store(MEAN + stat, mean + rest, mask=there)
    tl.store(VAR + stat, tl.where(var < 0, 0.0, var), mask=there)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def channels_apply_kernel(
    t, N, C, S, G, images, parts, steps, EPS: tl.float64, SLOPE: tl.float64, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, image, first, tiles, channels, stat = walk_back(N, C, S, G, images, parts, steps, FORM)
    mean, rstd = statistics(t.mean, t.var, t.scale, stat, channels < C, EPS)
    slope = slope_of(rstd, load(t.weight, channels, channels < C, dtype))
    b = load(t.bias, channels, channels < C, dtype)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        x = load_tile(t.x, tile, dtype) - mean[:, None]
        u = preactivation(x, slope[:, None], broad(b, 2), load_tile(t.skip, tile, dtype))
        store_tile(t.y, completed(u, load_tile(t.gate, tile, dtype), SLOPE, ACT), tile)


def moments(x, mean, var, last):
    """Fill mean and var: of statistics that a program holds, or every part on its own and all of a statistic merged."""
    z = sizes.of(x, mean, last).flat
    tile = sizes.resident(z, sizes.FORWARD_LIMIT)
    if tile is not None:
        programs, given, constants = sizes.holding(x, z, tile)
        channels_forward_kernel[(programs,)](
            Forward(x, None, None, None, None, mean, var), *given, EPS=0.0, SLOPE=0.0, ACT="identity", **constants
        )
        return
    s = sizes.split(z, sizes.FORWARD_TILE)
    _, rows = sizes.parts(z, s)
    partial = accumulator(mean, 4, rows, z.C)
    programs, given, constants = sizes.walking(z, s, x)
    channels_moments_kernel[(programs,)](x, partial, *given, **constants)
    programs, tile = sizes.merging(z, rows // z.B)
    channels_merge_moments_kernel[(programs,)](partial, mean, var, z.C, z.G, rows // z.B, rows, z.planes * z.S, **tile)


def apply(t: Forward, a) -> None:
    """Fill y, with the statistics given; a: the arguments of an op that apply to y."""
    z = sizes.of(t.x, t.mean, a.channels_last)
    s = sizes.split(z, sizes.FORWARD_TILE, sizes.STEPS)
    programs, given, constants = sizes.walking(z, s, t.x, t.skip, t.gate)
    channels_apply_kernel[(programs,)](t, *given, EPS=a.eps, SLOPE=a.slope, ACT=act(a), **constants)


def forward(a) -> None:
    """Fill y, mean and var. Statistics that a program holds are read once, larger ones again, from L2 if they fit."""
    z = sizes.of(a.x, a.mean, a.channels_last)
    t, tile = filled(a), sizes.resident(z, sizes.FORWARD_LIMIT)
    if tile is None:
        moments(a.x, a.mean, a.var, a.channels_last)
        apply(t, a)
        return
    programs, given, constants = sizes.holding(a.x, z, tile)
    channels_forward_kernel[(programs,)](t, *given, EPS=a.eps, SLOPE=a.slope, ACT=act(a), **constants)
