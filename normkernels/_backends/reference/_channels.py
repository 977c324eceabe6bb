"""Channels in plain PyTorch: the formula, and its sweeps as the ops want them.

x, skip, y, dy, dx, dskip are contiguous (N, C, S), or (N, S, C) with ``channels_last``. mean and var are (B, G): one
statistic pools N / B images and C / G adjacent channels. So (1, C) is batch norm, (N, G) group norm, (N, C) instance
norm.
"""

from typing import Any

import torch

from normkernels._activations import activation as act
from normkernels._activations import derivative, of_gate
from normkernels._backends.reference._rows import centred, inverse_root


def planes(t, channels_last) -> Any:
    """t as (N, C, S); None stays None."""
    return t.transpose(1, 2) if t is not None and channels_last else t


def pooled(t, shape):
    """t (N, C, S) as (B, N / B, G, C / G, S): what one statistic is taken over is dims 1, 3 and 4."""
    images = t.shape[0] // max(shape[0], 1)  # a batch may be empty
    return t.reshape(shape[0], images, shape[1], t.shape[1] // shape[1], t.shape[2])


def means(t, shape):
    """The mean over each statistic's elements, (B, G)."""
    return pooled(t, shape).mean((1, 3, 4))


def spread(statistic, t):
    """The statistic (B, G) of each element of t (N, C, S)."""
    B, G = statistic.shape
    N, C, S = t.shape
    return statistic.view(B, 1, G, 1, 1).expand(B, N // max(B, 1), G, C // G, S).reshape(t.shape)


def normalised(x, shape, eps):
    """xhat, and rstd for each of its elements, from the statistics of x itself."""
    z, _ = centred(pooled(x, shape), (1, 3, 4))
    rstd = inverse_root(z, (1, 3, 4), eps)
    return (z * rstd).reshape(x.shape), rstd.expand(z.shape).reshape(x.shape)


def normalised_by(mean, var, x, eps):
    """The same from given statistics."""
    rstd = torch.rsqrt(spread(var, x) + eps)
    return (x - spread(mean, x)) * rstd, rstd


def moments(x, shape):
    """Biased: var is the mean of (x - mean)^2, and half the largest number where it is beyond that."""
    z, mean = centred(pooled(x, shape), (1, 3, 4))
    return mean.reshape(shape), z.square().mean((1, 3, 4)).clamp(max=torch.finfo(z.dtype).max / 2)


def affine(xhat, weight, bias, skip):
    """u = xhat * weight + bias + skip; weight and bias are (C,), or (N, C): of each image"""
    if weight is not None:
        xhat = xhat * weight.to(xhat.dtype)[..., None]
    if bias is not None:
        xhat = xhat + bias.to(xhat.dtype)[..., None]
    return xhat if skip is None else xhat + skip.to(xhat.dtype)


def completed(xhat, weight, bias, skip, activation, slope):
    """act(u), or u act(gate) where the activation is that of a gate, which is in the place of skip."""
    gated, name = of_gate(activation)
    if not gated:
        return act(name, affine(xhat, weight, bias, skip), slope)
    return affine(xhat, weight, bias, None) * act(name, skip.to(xhat.dtype), slope)


def channels_ref(x, skip, weight, bias, mean, var, shape, eps, activation, slope):
    """y = act((x - mean) / sqrt(var + eps) * weight + bias + skip), x: (N, C, S); mean, var None: those of x."""
    z = x.to(torch.promote_types(x.dtype, torch.float32))
    xhat, _ = normalised(z, shape, eps) if mean is None else normalised_by(mean, var, z, eps)
    return completed(xhat, weight, bias, skip, activation, slope).to(x.dtype)


def in_planes(a) -> Any:
    """An op's arguments with what lies as (N, S, C) seen as (N, C, S)."""
    lying = [name for name in ("x", "skip", "y", "dy", "dx", "dskip") if name in a._fields]
    return a._replace(**{name: planes(getattr(a, name), a.channels_last) for name in lying})


def channels_moments(a):
    for result, value in zip((a.mean, a.var), moments(in_planes(a).x.to(a.mean.dtype), a.mean.shape), strict=True):
        result.copy_(value)


def channels_apply(a):
    a = in_planes(a)
    x, shape = a.x.to(a.mean.dtype), a.mean.shape
    a.y.copy_(channels_ref(x, a.skip, a.weight, a.bias, a.mean, a.var, shape, a.eps, a.activation, a.slope))


def channels_fwd(a):
    channels_moments(a)
    a = in_planes(a)
    x, shape = a.x.to(a.mean.dtype), a.mean.shape
    a.y.copy_(channels_ref(x, a.skip, a.weight, a.bias, None, None, shape, a.eps, a.activation, a.slope))


def _differentiated(a, training):
    """xhat, rstd, du = dy * act'(u) and dskip, (N, C, S). In training mean and var, rounded, are taken again from x."""
    x = a.x.to(a.mean.dtype)
    xhat, rstd = normalised(x, a.mean.shape, a.eps) if training else normalised_by(a.mean, a.var, x, a.eps)
    dy, (gated, name) = a.dy.to(x.dtype), of_gate(a.activation)
    if not gated:
        du = dy * derivative(name, affine(xhat, a.weight, a.bias, a.skip), a.slope)
        return xhat, rstd, du, du
    u, gate = affine(xhat, a.weight, a.bias, None), a.skip.to(x.dtype)
    return xhat, rstd, dy * act(name, gate, a.slope), dy * u * derivative(name, gate, a.slope)


def channels_sums(a):
    xhat, _, du, _ = _differentiated(in_planes(a), training=False)
    a.sum_dy.copy_(du.sum((0, 2)))
    a.sum_dy_xhat.copy_((du * xhat).sum((0, 2)))


def channels_dx(a):
    """dx = rstd * w * (du - mean(du) - xhat * mean(du * xhat)), with those means given for each channel."""
    a = in_planes(a)
    xhat, rstd, du, dskip = _differentiated(a, training=False)
    if a.dskip is not None:
        a.dskip.copy_(dskip)
    g = du - a.mean_dy[:, None] - xhat * a.mean_dy_xhat[:, None]
    a.dx.copy_(affine(g, a.weight, None, None) * rstd)


def channels_bwd(a):
    channels_backward(a, a.training)


def channels_backward(a, training):
    """dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = du * w; dx = rstd * g where mean and var are constants."""
    a = in_planes(a)
    xhat, rstd, du, dskip = _differentiated(a, training)
    g = affine(du, a.weight, None, None)
    if training:
        c1, c2 = (spread(means(t, a.mean.shape), g) for t in (g, g * xhat))
        g = g - c1 - xhat * c2
    a.dx.copy_(g * rstd)
    for result, value in ((a.dskip, dskip), (a.dweight, (du * xhat).sum((0, 2))), (a.dbias, du.sum((0, 2)))):
        if result is not None:
            result.copy_(value)
