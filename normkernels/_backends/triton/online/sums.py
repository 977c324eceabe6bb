"""Online, backward: the sums over each sample of dz xhat and of dz, dz the gradient at z, and layer scaling's kappa."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.backward import merge
from normkernels._backends.triton.channels.tiles import aligned, broad, load, load_tile, store, store_tile, zeros
from normkernels._backends.triton.channels.walks import place, step, walk
from normkernels._backends.triton.online.sizes import valuing
from normkernels._backends.triton.online.tiles import gradient, of_sample, values


class Backward(NamedTuple):
    """As in the schema; kappa: (N,); pe, pu: (N, C), the accumulators that a sample meets, times p; sums: (N, C)."""

    dy: Tensor | None
    x: Tensor
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    rstd: Tensor
    gain: Tensor | None
    kappa: Tensor | None = None
    pe: Tensor | None = None
    pu: Tensor | None = None
    sum_gx: Tensor | None = None
    sum_g: Tensor | None = None
    dx: Tensor | None = None
    dskip: Tensor | None = None


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def online_sums_kernel(
    t, N, C, S, G, images, parts, steps,  # sums: of the rows of parts
    SLOPE: tl.float64, CLAMP: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, row, image, first, tiles = walk(tl.program_id(0), N, C, S, parts, steps, FORM)
    channels = low + tl.arange(0, FORM.BLOCK_A)
    stat = place(image, channels, C, G, images, FORM.POOLED)
    mean, rstd = load(t.mean, stat, channels < C, dtype)[:, None], load(t.rstd, stat, channels < C, dtype)[:, None]
    w = broad(load(t.weight, channels, channels < C, dtype), 2)
    b = broad(load(t.bias, channels, channels < C, dtype), 2)
    gain = of_sample(t.gain, image)
    gx, g = zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype), zeros(FORM.BLOCK_A, FORM.BLOCK_B, dtype)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        xhat = (load_tile(t.x, tile, dtype) - mean) * rstd
        skip = load_tile(t.skip, tile, dtype)
        _, _, dz = gradient(load_tile(t.dy, tile, dtype), xhat, w, b, gain, skip, CLAMP, ACT, SLOPE)
        gx += dz * xhat
        g += dz
    store(t.sum_gx, tl.sum(gx, axis=1), row * C + channels, channels < C)
    store(t.sum_g, tl.sum(g, axis=1), row * C + channels, channels < C)


@triton.jit(do_not_specialize=["N", "C"])
def online_sums_values_kernel(
    t, N, C, SLOPE: tl.float64, CLAMP: tl.constexpr, ACT: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    # samples of one value: dz, and dskip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    samples, channels, tile = values(N, C, ALIGN, BLOCK_A, BLOCK_B)
    xhat = (load_tile(t.x, tile, dtype) - load_tile(t.mean, tile, dtype)) * load_tile(t.rstd, tile, dtype)
    w = load(t.weight, channels, channels < C, dtype)
    b = load(t.bias, channels, channels < C, dtype)
    gain = load(t.gain, samples, samples < N, dtype)
    skip = load_tile(t.skip, tile, dtype)
    _, du, dz = gradient(load_tile(t.dy, tile, dtype), xhat, w, b, gain, skip, CLAMP, ACT, SLOPE)
    store_tile(t.sum_g, dz, tile)
    store_tile(t.dskip, du, tile)


@triton.jit(do_not_specialize=["C", "count"])
def online_kappa_kernel(t, C, count, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr):
    # kappa = mean(dz z gain) over a sample, `count` values of each channel
    dtype: tl.constexpr = t.mean.dtype.element_ty
    C = C // ALIGN * ALIGN
    sample = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK_A], dtype)
    for low in range(0, C, BLOCK_A):
        channels = low + tl.arange(0, BLOCK_A)
        there, at = channels < C, sample * C + channels
        g = load(t.sum_g, at, there, dtype)
        gx = dotted(t, g, at, there)
        total += affine(gx, load(t.weight, channels, there, dtype), None)
        if t.bias is not None:
            total += g * load(t.bias, channels, there, dtype)
    tl.store(t.kappa + sample, tl.sum(total, axis=0) * tl.load(t.gain + sample) / (C.to(dtype) * count.to(dtype)))


@triton.jit
def dotted(t, g, at, mask):
    # the sum of dz xhat over a sample
    if t.sum_gx is None:
        gx = (load(t.x, at, mask, g.dtype) - load(t.mean, at, mask, g.dtype)) * load(t.rstd, at, mask, g.dtype) * g
    else:
        gx = load(t.sum_gx, at, mask, g.dtype)
    return gx


def sample_sums(t: Backward, a, constants: dict) -> tuple[Tensor | None, Tensor]:
    """Tables (N, C), sums over a sample of dz xhat and of dz. Of samples of one value: None and dz; fills dskip."""
    N, C = a.mean.shape
    if a.x.numel() == a.mean.numel():
        programs, tile = valuing(a.x, a.mean)
        sum_g = accumulator(a.mean, N, C)
        online_sums_values_kernel[(programs,)](t._replace(sum_g=sum_g, dskip=a.dskip), N, C, **constants, **tile)
        return None, sum_g
    z = sizes.of(a.x, a.mean, a.channels_last)
    s = sizes.split(z, sizes.BACKWARD_TILE)
    partial = accumulator(a.mean, sizes.parts(z, s)[1], C), accumulator(a.mean, sizes.parts(z, s)[1], C)
    programs, walked, tile = sizes.walking(z, s, a.x, a.dy, a.skip)
    online_sums_kernel[(programs,)](t._replace(sum_gx=partial[0], sum_g=partial[1]), *walked, **constants, **tile)
    if len(partial[0]) == N:
        return partial
    sums = accumulator(a.mean, N, C), accumulator(a.mean, N, C)
    merge(*partial, None, None, None, *sums, z)
    return sums
