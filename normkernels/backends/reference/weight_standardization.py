"""Weight standardisation in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels.backends.reference._rows import compute_dtype


def weight_standardization_ref(w, gain, eps):
    """gain (w - mean) / sqrt(var + eps), biased var, a filter in each row of w (M, N) (Qiao et al. 2019, eq. 3, 4)."""
    filters = w.to(compute_dtype(w))
    centred = filters - filters.mean(1, keepdim=True)
    y = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + eps)
    return y if gain is None else y * gain.to(y.dtype).view(-1, 1)


def weight_standardization_fwd(w, gain, y, mean, rstd, eps):
    """w, y: (M, N); gain, mean, rstd: (M,)."""
    filters = w.to(mean.dtype)
    mean.copy_(filters.mean(1))
    centred = filters - mean.unsqueeze(1)
    rstd.copy_(torch.rsqrt(centred.square().mean(1) + eps))
    scale = rstd if gain is None else rstd * gain.to(rstd.dtype)
    y.copy_(centred * scale.unsqueeze(1))


def weight_standardization_bwd(dy, w, gain, mean, rstd, dw, dgain):
    """dgain = sum(dy xhat), dw = gain rstd (dy - mean(dy) - xhat mean(dy xhat))."""
    d, xhat = dy.to(mean.dtype), (w.to(mean.dtype) - mean.unsqueeze(1)) * rstd.unsqueeze(1)
    along = d * xhat
    if dgain is not None:
        dgain.copy_(along.sum(1))
    scale = rstd if gain is None else rstd * gain.to(rstd.dtype)
    dw.copy_(scale.unsqueeze(1) * (d - d.mean(1, keepdim=True) - xhat * along.mean(1, keepdim=True)))
