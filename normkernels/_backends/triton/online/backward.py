"""Online, backward: dx = (dz w - p e xhat) rstd - p u, dz the gradient at z, e and u the accumulators a sample meets.

Where mean and rstd are constants, dx = dz w rstd.
"""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import accumulator
from normkernels._backends.triton.base.values import affine
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.tiles import aligned, broad, load, load_tile, store_tile
from normkernels._backends.triton.channels.walks import step, walk_back
from normkernels._backends.triton.online.control import Control, online_control_kernel
from normkernels._backends.triton.online.sizes import averaging, scanning, valuing
from normkernels._backends.triton.online.sums import Backward, online_kappa_kernel, sample_sums
from normkernels._backends.triton.online.tiles import gradient, of_sample, unscaled, values


@triton.jit(do_not_specialize=["N", "C", "S", "G", "images", "parts", "steps"])
def online_dx_kernel(
    t, N, C, S, G, images, parts, steps, SLOPE: tl.float64, CLAMP: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    dtype: tl.constexpr = t.mean.dtype.element_ty
    STAGES: tl.constexpr = FORM.STAGES
    C, S = aligned(C, S, FORM)
    low, image, first, tiles, channels, stat = walk_back(N, C, S, G, images, parts, steps, FORM)
    mean, rstd = load(t.mean, stat, channels < C, dtype)[:, None], load(t.rstd, stat, channels < C, dtype)[:, None]
    w = broad(load(t.weight, channels, channels < C, dtype), 2)
    b = broad(load(t.bias, channels, channels < C, dtype), 2)
    pe = broad(load(t.pe, stat, channels < C, dtype), 2)
    pu = broad(load(t.pu, stat, channels < C, dtype), 2)
    gain = of_sample(t.gain, image)
    kappa = of_sample(t.kappa, image)
    for i in tl.range(0, tiles, num_stages=STAGES):
        tile = step(i, low, image, first, N, C, S, FORM)
        xhat = (load_tile(t.x, tile, dtype) - mean) * rstd
        skip = load_tile(t.skip, tile, dtype)
        z, du, dz = gradient(load_tile(t.dy, tile, dtype), xhat, w, b, gain, skip, CLAMP, ACT, SLOPE)
        store_tile(t.dskip, du, tile)
        store_tile(t.dx, controlled(unscaled(dz, z, gain, kappa), xhat, w, rstd, pe, pu), tile)


@triton.jit(do_not_specialize=["N", "C"])
def online_dx_values_kernel(t, N, C, ALIGN: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr):
    dtype: tl.constexpr = t.mean.dtype.element_ty
    samples, channels, tile = values(N, C, ALIGN, BLOCK_A, BLOCK_B)
    rstd = load_tile(t.rstd, tile, dtype)
    w = load(t.weight, channels, channels < C, dtype)
    xhat = (load_tile(t.x, tile, dtype) - load_tile(t.mean, tile, dtype)) * rstd
    z = affine(xhat, w, load(t.bias, channels, channels < C, dtype))
    gain = load(t.gain, samples, samples < N, dtype)
    kappa = load(t.kappa, samples, samples < N, dtype)
    dz = unscaled(load_tile(t.sum_g, tile, dtype), z, gain, kappa)
    dx = controlled(dz, xhat, w, rstd, load_tile(t.pe, tile, dtype), load_tile(t.pu, tile, dtype))
    store_tile(t.dx, dx, tile)


@triton.jit
def controlled(dz, xhat, w, rstd, pe, pu):
    # dx, from the gradient at z
    dx = affine(dz, w, None)
    if pe is not None:
        dx = (dx - pe * xhat) * rstd - pu
    else:
        dx = dx * rstd
    return dx


def backward(a) -> None:
    """Fill dx, dskip, dweight, dbias and the new accumulators: sums over each sample, the control process, then dx."""
    N, C = a.mean.shape
    read = a.x, a.skip, a.weight, a.bias, a.mean, a.rstd, a.gain
    constants = {"SLOPE": a.slope, "CLAMP": a.clamp, "ACT": a.activation}
    t = Backward(a.dy, *read)
    sum_gx, sum_g = sample_sums(t, a, constants)
    kappa, pe, pu = None, None, None
    if a.gain is not None:
        kappa = accumulator(a.mean, N)
        programs, tile = averaging(a.mean)
        tables = Backward(None, a.x, None, *read[2:], kappa=kappa, sum_gx=sum_gx, sum_g=sum_g)
        online_kappa_kernel[(programs,)](tables, C, a.x.numel() // a.mean.numel(), **tile)
    if a.epsilon_y is not None:
        pe, pu = accumulator(a.mean, N, C), accumulator(a.mean, N, C)
    if a.epsilon_y is not None or a.dweight is not None or a.dbias is not None:
        control(a, sum_gx, sum_g, kappa, pe, pu)
    t = t._replace(kappa=kappa, pe=pe, pu=pu, dx=a.dx)
    if sum_gx is None:
        programs, tile = valuing(a.x, a.mean)
        online_dx_values_kernel[(programs,)](t._replace(dy=None, skip=None, sum_g=sum_g), N, C, **tile)
        return
    z = sizes.of(a.x, a.mean, a.channels_last)
    programs, walked, tile = sizes.walking(z, sizes.split(z, sizes.BACKWARD_TILE, sizes.STEPS), a.x, a.dy, a.skip)
    online_dx_kernel[(programs,)](t._replace(dskip=a.dskip), *walked, **constants, **tile)


def control(a, sum_gx, sum_g, kappa, pe, pu) -> None:
    """Fill dweight, dbias, the new accumulators, and pe and pu, which dx needs."""
    programs, tile = scanning(a.mean)
    met = a.x, a.mean, a.rstd, a.xhat_mean, a.xhat_square, a.weight, a.bias, a.gain, kappa, a.epsilon_y, a.epsilon_1
    t = Control(sum_gx, sum_g, *met, pe, pu, a.new_epsilon_y, a.new_epsilon_1, a.dweight, a.dbias)
    count = a.x.numel() // a.mean.numel()
    online_control_kernel[(programs,)](t, *a.mean.shape, count, P=1 - a.alpha, STABLE=a.stable, **tile)
