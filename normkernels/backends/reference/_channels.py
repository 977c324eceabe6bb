"""Channels in plain PyTorch: the formula, and its sweeps as the ops want them.

x, skip, y, dy, dx, dskip are contiguous (N, C, S), or (N, S, C) with ``channels_last``. mean and var are (B, G): one
statistic pools N / B images and C / G adjacent channels. So (1, C) is batch norm, (N, G) group norm, (N, C) instance
norm.
"""

from typing import Any

import torch

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels.backends.reference._rows import centred, inverse_root


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
    """u = xhat * weight + bias + skip"""
    if weight is not None:
        xhat = xhat * weight.to(xhat.dtype)[:, None]
    if bias is not None:
        xhat = xhat + bias.to(xhat.dtype)[:, None]
    return xhat if skip is None else xhat + skip.to(xhat.dtype)


def channels_ref(x, skip, weight, bias, mean, var, shape, eps, activation, slope):
    """y = act((x - mean) / sqrt(var + eps) * weight + bias + skip), x: (N, C, S); mean, var None: those of x."""
    z = x.to(torch.promote_types(x.dtype, torch.float32))
    xhat, _ = normalised(z, shape, eps) if mean is None else normalised_by(mean, var, z, eps)
    return act(activation, affine(xhat, weight, bias, skip), slope).to(x.dtype)


def channels_moments(x, mean, var, channels_last):
    found = moments(planes(x, channels_last).to(mean.dtype), mean.shape)
    mean.copy_(found[0])
    var.copy_(found[1])


def channels_apply(x, skip, weight, bias, mean, var, y, eps, activation, slope, channels_last):
    x, skip, y = (planes(t, channels_last) for t in (x, skip, y))
    y.copy_(channels_ref(x.to(mean.dtype), skip, weight, bias, mean, var, mean.shape, eps, activation, slope))


def channels_fwd(x, skip, weight, bias, y, mean, var, eps, activation, slope, channels_last):
    channels_moments(x, mean, var, channels_last)
    x, skip, y = (planes(t, channels_last) for t in (x, skip, y))
    y.copy_(channels_ref(x.to(mean.dtype), skip, weight, bias, None, None, mean.shape, eps, activation, slope))


def _differentiated(dy, x, skip, weight, bias, mean, var, eps, activation, slope, training=False):
    """xhat, rstd, and du = dy * act'(u), all (N, C, S). In training mean and var, rounded, are taken again from x."""
    z = x.to(mean.dtype)
    xhat, rstd = normalised(z, mean.shape, eps) if training else normalised_by(mean, var, z, eps)
    du = dy.to(z.dtype) * derivative(activation, affine(xhat, weight, bias, skip), slope)
    return xhat, rstd, du


def channels_sums(
    dy, x, skip, weight, bias, mean, var, sum_dy, sum_dy_xhat, eps, activation, slope, channels_last
):  # fmt: skip
    dy, x, skip = (planes(t, channels_last) for t in (dy, x, skip))
    xhat, _, du = _differentiated(dy, x, skip, weight, bias, mean, var, eps, activation, slope)
    sum_dy.copy_(du.sum((0, 2)))
    sum_dy_xhat.copy_((du * xhat).sum((0, 2)))


def channels_dx(
    dy, x, skip, weight, bias, mean, var, mean_dy, mean_dy_xhat, dx, dskip, eps, activation, slope, channels_last
):  # fmt: skip
    """dx = rstd * w * (du - mean(du) - xhat * mean(du * xhat)), with those means given for each channel."""
    dy, x, skip, dx, dskip = (planes(t, channels_last) for t in (dy, x, skip, dx, dskip))
    xhat, rstd, du = _differentiated(dy, x, skip, weight, bias, mean, var, eps, activation, slope)
    if dskip is not None:
        dskip.copy_(du)
    dx.copy_(affine(du - mean_dy[:, None] - xhat * mean_dy_xhat[:, None], weight, None, None) * rstd)


def channels_bwd(
    dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, eps, training, activation, slope, channels_last
):  # fmt: skip
    """dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = du * w; dx = rstd * g where mean and var are constants."""
    dy, x, skip, dx, dskip = (planes(t, channels_last) for t in (dy, x, skip, dx, dskip))
    xhat, rstd, du = _differentiated(dy, x, skip, weight, bias, mean, var, eps, activation, slope, training)
    g = affine(du, weight, None, None)
    if training:
        c1, c2 = (spread(means(t, mean.shape), g) for t in (g, g * xhat))
        g = g - c1 - xhat * c2
    dx.copy_(g * rstd)
    if dskip is not None:
        dskip.copy_(du)
    if dweight is not None:
        dweight.copy_((du * xhat).sum((0, 2)))
    if dbias is not None:
        dbias.copy_(du.sum((0, 2)))
