"""Streaming Normalization (Liao, Kawaguchi & Poggio 2016, arXiv:1610.06160).

x, skip, y, dy, dx, dskip are contiguous (N, C, S), or (N, S, C) with ``channels_last``. Pairs (2, C) hold a mean and a
scale, or the gradients of both; counts (2,): the arrivals that the short term averages, and the updates of the long
one.
"""

import torch

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels.backends.reference._channels import affine, planes


def deviation(v, p):
    """|v|^(p - 1) sign(v), the derivative of |v|^p / p"""
    return v if p == 2 else v.sign() if p == 1 else v.abs().pow(p - 1) * v.sign()


def statistics(x, p, eps):
    """mean(x) and (mean(|x - mean|^p) + eps)^(1 / p), (2, C), of x (N, C, S)"""
    mean = x.mean((0, 2))
    return torch.stack([mean, ((x - mean[:, None]).abs().pow(p).mean((0, 2)) + eps).pow(1 / p)])


def streamed(found, long_term, short_term, counts, weights):
    """What is used, and the new short term: its average with ``found``; it stands in for a long term not yet there."""
    short = short_term + (found - short_term) / (counts[0] + 1)
    past = torch.where(counts[1] > 0, long_term, short)
    return weights[0] * past + weights[1] * short + weights[2] * found, short


def streaming_norm_fwd(
    x, skip, weight, bias, long_term, short_term, counts, y, found, used, deviations, new_short_term,
    long, short, p, eps, activation, slope, channels_last,
):  # fmt: skip
    x, skip, y = (planes(t, channels_last) for t in (x, skip, y))
    v = x.to(found.dtype)
    found.copy_(statistics(v, p, eps))
    if deviations is not None:
        deviations.copy_(deviation(v - found[0, :, None], p).mean((0, 2)))
    mean_scale, new = streamed(found, long_term, short_term, counts, (long, short, 0.0))
    used.copy_(mean_scale)
    new_short_term.copy_(new)
    xhat = (v - used[0, :, None]) / used[1, :, None]
    y.copy_(act(activation, affine(xhat, weight, bias, skip), slope))


def gradients(
    dy, x, skip, weight, bias, found, used, long_term, short_term, counts, weights, p, activation, slope
):  # fmt: skip
    """dx, dskip, dweight, dbias, and the new short term; all (N, C, S)."""
    v = x.to(used.dtype)
    scale = used[1, :, None]
    xhat = (v - used[0, :, None]) / scale
    du = dy.to(v.dtype) * derivative(activation, affine(xhat, weight, bias, skip), slope)
    g = affine(du, weight, None, None)
    arrived = torch.stack([-(g / scale).sum((0, 2)), -(g * xhat / scale).sum((0, 2))])
    taken, new = streamed(arrived, long_term, short_term, counts, weights)
    of_mean, of_scale = taken / (v.shape[0] * v.shape[2])
    away = deviation(v - found[0, :, None], p)
    of_scale = of_scale * found[1].pow(1 - p)
    dx = g / scale + of_mean[:, None] + of_scale[:, None] * (away - away.mean((0, 2))[:, None])
    return dx, du, (du * xhat).sum((0, 2)), du.sum((0, 2)), new


def streaming_norm_bwd(
    dy, x, skip, weight, bias, found, used, deviations, long_term, short_term, counts, dx, dskip, dweight, dbias,
    new_short_term, long, short, current, p, eps, activation, slope, channels_last,
):  # fmt: skip
    dy, x, skip, dx, dskip = (planes(t, channels_last) for t in (dy, x, skip, dx, dskip))
    values = gradients(
        dy, x, skip, weight, bias, found, used, long_term, short_term, counts, (long, short, current), p, activation,
        slope,
    )  # fmt: skip
    for result, value in zip((dx, dskip, dweight, dbias, new_short_term), values, strict=True):
        if result is not None:
            result.copy_(value)
