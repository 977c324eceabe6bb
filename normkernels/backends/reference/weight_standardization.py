"""Weight standardisation in plain PyTorch: the formula, and its forward and backward as the ops want them."""

from normkernels.backends.reference._rows import centred, compute_dtype, inverse_root


def weight_standardization_ref(w, gain, eps):
    """gain (w - mean) / sqrt(var + eps), biased var, a filter in each row of w (M, N) (Qiao et al. 2019, eq. 3, 4)."""
    filters, _ = centred(w.to(compute_dtype(w)), 1)
    y = filters * inverse_root(filters, 1, eps)
    return y if gain is None else y * gain.to(y.dtype).view(-1, 1)


def weight_standardization_fwd(w, gain, y, mean, rstd, eps):
    """w, y: (M, N); gain, mean, rstd: (M,)."""
    filters, found = centred(w.to(mean.dtype), 1)
    mean.copy_(found.squeeze(1))
    rstd.copy_(inverse_root(filters, 1, eps).squeeze(1))
    scale = rstd if gain is None else rstd * gain.to(rstd.dtype)
    y.copy_(filters * scale.unsqueeze(1))


def weight_standardization_bwd(dy, w, gain, mean, rstd, dw, dgain):
    """dgain = sum(dy xhat), dw = gain rstd (dy - mean(dy) - xhat mean(dy xhat))."""
    d = dy.to(mean.dtype)
    xhat, _ = centred((w.to(mean.dtype) - mean.unsqueeze(1)) * rstd.unsqueeze(1), 1)  # the mean kept is rounded
    along = d * xhat
    if dgain is not None:
        dgain.copy_(along.sum(1))
    scale = rstd if gain is None else rstd * gain.to(rstd.dtype)
    dw.copy_(scale.unsqueeze(1) * (d - d.mean(1, keepdim=True) - xhat * along.mean(1, keepdim=True)))
