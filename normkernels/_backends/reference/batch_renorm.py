"""Batch Renormalization (Ioffe 2017, arXiv:1702.03275, algorithm 1); layouts as in _channels.py, statistics (1, C)."""

import torch

from normkernels._backends.reference._channels import (
    affine,
    channels_backward,
    channels_moments,
    channels_ref,
    in_planes,
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


def batch_renorm_fwd(a):
    channels_moments(a)
    found = correction(a.mean, a.var, a.running_mean, a.running_std, a.r_max, a.d_max, a.eps)
    for result, value in zip((a.r, a.d), found, strict=True):
        result.copy_(value)
    a = in_planes(a)
    x = a.x.to(a.mean.dtype)
    a.y.copy_(batch_renorm_ref(x, a.skip, a.weight, a.bias, a.r, a.d, a.eps, a.activation, a.slope))


def batch_renorm_bwd(a):
    """Batch norm's gradients under the corrected affine; of the weight itself: r * dweight + d * dbias."""
    scale, shift = corrected(a.weight, a.bias, a.r, a.d)
    of_scale, of_shift = torch.empty_like(scale), torch.empty_like(shift)
    channels_backward(a._replace(weight=scale, bias=shift, dweight=of_scale, dbias=of_shift), training=True)
    if a.dweight is not None:
        a.dweight.copy_(a.r[0] * of_scale + a.d[0] * of_shift)
    if a.dbias is not None:
        a.dbias.copy_(of_shift)
