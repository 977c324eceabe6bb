"""Batch Renormalization (Ioffe 2017, arXiv:1702.03275, algorithm 1); layouts as in _channels.py, statistics (1, C)."""

import torch

from normkernels.backends.reference._channels import (
    affine,
    channels_bwd,
    channels_moments,
    channels_ref,
    planes,
)


def correction(mean, var, running_mean, running_std, r_max, d_max, eps):
    """r and d, which take statistics of a batch to the running ones as far as they may."""
    std = torch.sqrt(var + eps)
    r = torch.minimum(torch.maximum(std / running_std, 1 / r_max), r_max)
    d = torch.minimum(torch.maximum((mean - running_mean) / running_std, -d_max), d_max)
    return r, d


def corrected(weight, bias, r, d):
    """The affine of xhat: weight * (xhat * r + d) + bias."""
    w = torch.ones_like(r[0]) if weight is None else weight.to(r.dtype)
    return w * r[0], affine((w * d[0])[:, None], None, bias, None)[:, 0]


def batch_renorm_ref(x, skip, weight, bias, r, d, eps, activation, slope):
    """y of x (N, C, S), with r and d for constants."""
    return channels_ref(x, skip, *corrected(weight, bias, r, d), None, None, r.shape, eps, activation, slope)


def batch_renorm_fwd(
    x, skip, weight, bias, running_mean, running_std, r_max, d_max, y, mean, var, r, d, eps, activation, slope,
    channels_last,
):  # fmt: skip
    channels_moments(x, mean, var, channels_last)
    for result, value in zip((r, d), correction(mean, var, running_mean, running_std, r_max, d_max, eps), strict=True):
        result.copy_(value)
    x, skip, y = (planes(t, channels_last) for t in (x, skip, y))
    y.copy_(batch_renorm_ref(x.to(mean.dtype), skip, weight, bias, r, d, eps, activation, slope))


def batch_renorm_bwd(
    dy, x, skip, weight, bias, mean, var, r, d, dx, dskip, dweight, dbias, eps, activation, slope, channels_last
):  # fmt: skip
    """Batch norm's gradients under the corrected affine; of the weight itself: r * dweight + d * dbias."""
    scale, shift = corrected(weight, bias, r, d)
    of_scale, of_shift = torch.empty_like(scale), torch.empty_like(shift)
    channels_bwd(
        dy, x, skip, scale, shift, mean, var, dx, dskip, of_scale, of_shift, eps, True, activation, slope, channels_last
    )
    if dweight is not None:
        dweight.copy_(r[0] * of_scale + d[0] * of_shift)
    if dbias is not None:
        dbias.copy_(of_shift)
