"""Streaming, backward: dx = du w / scale + slope deviation(x - mean) + shift, both from streamed gradients."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.backward import sums
from normkernels._backends.triton.channels.tensors import Backward as Summed
from normkernels._backends.triton.channels.tiles import (
    aligned,
    broad,
    differentiated,
    held,
    load,
    load_tile,
    slope_of,
    statistics,
    store,
    store_tile,
    total,
)
from normkernels._backends.triton.channels.walks import step, walk_back
from normkernels._backends.triton.streaming.tiles import arrived, deviation

BLOCK = 256


class Backward(NamedTuple):
    """As in the schema; sum_gx, sum_g, away, shift: (C,), of a batch that no program holds."""

    dy: Tensor | None
    x: Tensor | None
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    found: Tensor
    used: Tensor
    deviations: Tensor | None = None
    long_term: Tensor | None = None
    short_term: Tensor | None = None
    counts: Tensor | None = None
    new_short_term: Tensor | None = None
    dx: Tensor | None = None
    dskip: Tensor | None = None
    dweight: Tensor | None = None
    dbias: Tensor | None = None
    sum_gx: Tensor | None = None
    sum_g: Tensor | None = None
    away: Tensor | None = None
    shift: Tensor | None = None


@triton.jit(do_not_specialize=["C", "S", "G", "PLANES"])
def streaming_backward_kernel(
    t, C, S, G, PLANES, LONG: tl.float64, SHORT: tl.float64, CURRENT: tl.float64, SLOPE: tl.float64,
    P: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = t.found.dtype.element_ty
    C, S = aligned(C, S, FORM)
    channels, there, _, tile = held(C, S, G, PLANES, FORM)
    mean, rstd = statistics(t.used, None, t.used + C, channels, there, 0.0)
    w = load(t.weight, channels, there, dtype)
    b = load(t.bias if ACT != "identity" else None, channels, there, dtype)
    x = load_tile(t.x, tile, dtype)
    xhat = (x - broad(mean, 3)) * broad(rstd, 3)
    du = differentiated(t, xhat, broad(w, 3), broad(b, 3), tile, SLOPE, ACT)
    store_tile(t.dskip, du, tile)
    dw, db = total(du * xhat), total(du)
    store(t.dweight, dw, channels, there)
    store(t.dbias, db, channels, there)
    gx, g, count = affine(dw, w, None), affine(db, w, None), (PLANES * S).to(dtype)
    slope, shift = arrived(t, gx, g, 1 / rstd, channels, there, C, count, LONG, SHORT, CURRENT, P)
    away = deviation(x - broad(load(t.found, channels, there, dtype), 3), P)
    store_tile(t.dx, du * broad(slope_of(rstd, w), 3) + away * broad(slope, 3) + broad(shift, 3), tile)


@triton.jit(do_not_specialize=["C", "count"])
def streaming_backward_rule_kernel(
    t, C, count, LONG: tl.float64, SHORT: tl.float64, CURRENT: tl.float64, P: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.found.dtype.element_ty
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = channels < C
    dw = load(t.sum_gx, channels, there, dtype)
    db = load(t.sum_g, channels, there, dtype)
    store(t.dweight, dw, channels, there)
    store(t.dbias, db, channels, there)
    w = load(t.weight, channels, there, dtype)
    scale = tl.load(t.used + C + channels, mask=there, other=1.0)
    gx, g = affine(dw, w, None), affine(db, w, None)
    slope, shift = arrived(t, gx, g, scale, channels, there, C, count.to(dtype), LONG, SHORT, CURRENT, P)
    store(t.away, slope, channels, there)
    store(t.shift, shift, channels, there)


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def streaming_dx_kernel(
    t, N, C, S, G, images, parts, steps, SLOPE: tl.float64, P: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.found.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, image, first, tiles, channels, _ = walk_back(N, C, S, G, images, parts, steps, FORM)
    there = channels < C
    mean, rstd = statistics(t.used, None, t.used + C, channels, there, 0.0)
    w = load(t.weight, channels, there, dtype)
    b = load(t.bias if ACT != "identity" else None, channels, there, dtype)
    slope = slope_of(rstd, w)[:, None]
    w = broad(w, 2)
    b = broad(b, 2)
    mean, rstd, found = mean[:, None], rstd[:, None], load(t.found, channels, there, dtype)[:, None]
    of_away, shift = load(t.away, channels, there, dtype)[:, None], load(t.shift, channels, there, dtype)[:, None]
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        x = load_tile(t.x, tile, dtype)
        du = differentiated(t, (x - mean) * rstd, w, b, tile, SLOPE, ACT)
        store_tile(t.dskip, du, tile)
        away = deviation(x - found, P)
        store_tile(t.dx, du * slope + away * of_away + shift, tile)


def backward(a) -> None:
    """Fill dx, dskip, dweight, dbias and the new short term. A batch that a program holds is read once."""
    z = sizes.of(a.x, a.found[0], a.channels_last)
    rule = {"LONG": a.long, "SHORT": a.short, "CURRENT": a.current, "P": a.p}
    read = Backward(a.dy, a.x, a.skip, a.weight, a.bias, a.found, a.used)
    memory = {"long_term": a.long_term, "short_term": a.short_term, "new_short_term": a.new_short_term}
    memory |= {"deviations": a.deviations, "counts": a.counts, "dweight": a.dweight, "dbias": a.dbias}
    if tile := sizes.resident(z, sizes.BACKWARD_LIMIT, 1 if a.activation == "identity" else 2):
        programs, given, constants = sizes.holding(a.x, z, tile)
        t = read._replace(**memory, dx=a.dx, dskip=a.dskip)
        streaming_backward_kernel[(programs,)](t, *given, **rule, SLOPE=a.slope, ACT=a.activation, **constants)
        return
    sum_gx, sum_g, away, shift = (accumulator(a.used, z.C) for _ in range(4))
    sums(Summed(a.dy, a.x, a.skip, a.weight, a.bias, a.used[0], None, a.used[1]), a, sum_gx, sum_g)
    tables = Backward(None, None, None, a.weight, None, a.found, a.used, **memory)
    tables = tables._replace(sum_gx=sum_gx, sum_g=sum_g, away=away, shift=shift)
    streaming_backward_rule_kernel[(cdiv(z.C, BLOCK),)](tables, z.C, z.planes * z.S, **rule, BLOCK_N=BLOCK, num_warps=4)
    s = sizes.split(z, sizes.BACKWARD_TILE, sizes.STEPS)
    programs, given, constants = sizes.walking(z, s, a.x, a.dy, a.skip)
    t = read._replace(away=away, shift=shift, dx=a.dx, dskip=a.dskip)
    streaming_dx_kernel[(programs,)](t, *given, P=a.p, SLOPE=a.slope, ACT=a.activation, **constants)
