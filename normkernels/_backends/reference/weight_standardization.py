"""Weight standardisation in plain PyTorch: the formula, and its forward and backward as the ops want them."""

from normkernels._backends.reference._rows import centred, compute_dtype, inverse_root


def weight_standardization_ref(w, gain, eps):
    """gain (w - mean) / sqrt(var + eps), biased var, a filter in each row of w (M, N) (Qiao et al. 2019, eq. 3, 4)."""
    filters, _ = centred(w.to(compute_dtype(w)), 1)
    y = filters * inverse_root(filters, 1, eps)
    return y if gain is None else y * gain.to(y.dtype).view(-1, 1)


def weight_standardization_fwd(a):
    """w, y: (M, N); gain, mean, rstd: (M,)."""
    filters, mean = centred(a.w.to(a.mean.dtype), 1)
    a.mean.copy_(mean.squeeze(1))
    a.rstd.copy_(inverse_root(filters, 1, a.eps).squeeze(1))
    a.y.copy_(filters * scale(a).unsqueeze(1))


def scale(a):
    """gain rstd, of a filter each."""
    return a.rstd if a.gain is None else a.rstd * a.gain.to(a.rstd.dtype)


def weight_standardization_bwd(a):
    """dgain = sum(dy xhat), dw = gain rstd (dy - mean(dy) - xhat mean(dy xhat))."""
    w, dy = a.w.to(a.mean.dtype), a.dy.to(a.mean.dtype)
    xhat, _ = centred((w - a.mean.unsqueeze(1)) * a.rstd.unsqueeze(1), 1)  # the mean kept is rounded
    along = dy * xhat
    if a.dgain is not None:
        a.dgain.copy_(along.sum(1))
    a.dw.copy_(scale(a).unsqueeze(1) * (dy - dy.mean(1, keepdim=True) - xhat * along.mean(1, keepdim=True)))
