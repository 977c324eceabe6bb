"""Streaming Normalization (Liao, Kawaguchi & Poggio 2016, arXiv:1610.06160).

x, skip, y, dy, dx, dskip are contiguous (N, C, S), or (N, S, C) with ``channels_last``. Pairs (2, C) hold a mean and a
scale, or the gradients of both; counts (2,): the arrivals that the short term averages, and the updates of the long
one.
"""

import torch

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels._backends.reference._channels import affine, in_planes
from normkernels._backends.reference._rows import added_up, mean_of


def deviation(v, p):
    """|v|^(p - 1) sign(v), the derivative of |v|^p / p"""
    return v if p == 2 else v.sign() if p == 1 else v.abs().pow(p - 1) * v.sign()


def statistics(x, p, eps):
    """mean(x) and (mean(|x - mean|^p) + eps)^(1 / p), (2, C), of x (N, C, S)"""
    mean = mean_of(x, (0, 2))
    return torch.stack([mean.flatten(), (mean_of((x - mean).abs().pow(p), (0, 2)).flatten() + eps).pow(1 / p)])


def streamed(found, long_term, short_term, counts, weights):
    """What is used, and the new short term: its average with ``found``; it stands in for a long term not yet there."""
    short = short_term + (found - short_term) / (counts[0] + 1)
    past = torch.where(counts[1] > 0, long_term, short)
    return weights[0] * past + weights[1] * short + weights[2] * found, short


def streaming_norm_fwd(a):
    a = in_planes(a)
    x = a.x.to(a.found.dtype)
    a.found.copy_(statistics(x, a.p, a.eps))
    if a.deviations is not None:
        a.deviations.copy_(deviation(x - a.found[0, :, None], a.p).mean((0, 2)))
    used, short = streamed(a.found, a.long_term, a.short_term, a.counts, (a.long, a.short, 0.0))
    a.used.copy_(used)
    a.new_short_term.copy_(short)
    xhat = (x - a.used[0, :, None]) / a.used[1, :, None]
    a.y.copy_(act(a.activation, affine(xhat, a.weight, a.bias, a.skip), a.slope))


def gradients(
    dy, x, skip, weight, bias, found, used, long_term, short_term, counts, weights, p, activation, slope, lean=None
):  # fmt: skip
    """dx, dskip, dweight, dbias, and the new short term; all (N, C, S). lean: the mean deviation, None: that of x."""
    v = x.to(used.dtype)
    scale = used[1, :, None]
    xhat = (v - used[0, :, None]) / scale
    du = dy.to(v.dtype) * derivative(activation, affine(xhat, weight, bias, skip), slope)
    g = affine(du, weight, None, None)
    arrived = added_up(torch.stack([-(g / scale).sum((0, 2)), -(g * xhat / scale).sum((0, 2))]))
    taken, new = streamed(arrived, long_term, short_term, counts, weights)
    of_mean, of_scale = taken / (v.shape[0] * v.shape[2])
    away = deviation(v - found[0, :, None], p)
    of_scale = of_scale * found[1].pow(1 - p)
    lean = mean_of(away, (0, 2)).flatten() if lean is None else lean
    dx = g / scale + of_mean[:, None] + of_scale[:, None] * (away - lean[:, None])
    return dx, du, (du * xhat).sum((0, 2)), du.sum((0, 2)), new


def streaming_norm_bwd(a):
    a = in_planes(a)
    values = gradients(
        a.dy, a.x, a.skip, a.weight, a.bias, a.found, a.used, a.long_term, a.short_term, a.counts,
        (a.long, a.short, a.current), a.p, a.activation, a.slope,
        torch.zeros_like(a.found[0]) if a.deviations is None else a.deviations,
    )  # fmt: skip
    for result, value in zip((a.dx, a.dskip, a.dweight, a.dbias, a.new_short_term), values, strict=True):
        if result is not None:
            result.copy_(value)
