"""RMS norm in plain PyTorch: the formula, and its forward and backward as the ops want them. N is dim 1 of x."""

from normkernels._backends.reference._rows import (
    affine,
    as_rows,
    completed,
    compute_dtype,
    inverse_root,
    store_input_grad,
    store_parameter_grad,
    through,
)


def rms_norm_ref(x, residual, weight, bias, gate, eps, weight_offset, activation, slope):
    """u = s / sqrt(mean(s^2) + eps) * (w + offset) + b (Zhang 2019, eq. 4), y = act(u) or u act(gate); (y, s)."""
    s = x if residual is None else x + residual
    z = s.to(compute_dtype(x))  # both outputs come from it, so that gradients add up in that dtype
    u = affine(z * inverse_root(z, 1, eps), weight, bias, weight_offset)
    return completed(u, gate, activation, slope).to(x.dtype), z.to(x.dtype)


def rms_norm_fwd(a):
    """y: (M, N); rstd: (M,)."""
    a = as_rows(a, a.y.shape)
    s = a.x if a.residual is None else a.summed.copy_(a.x + a.residual)
    z = s.to(a.rstd.dtype)
    rstd = inverse_root(z, 1, a.eps)
    a.rstd.copy_(rstd.squeeze(1))
    a.y.copy_(completed(affine(z * rstd, a.weight, a.bias, a.weight_offset), a.gate, a.activation, a.slope))


def rms_norm_bwd(a):
    """dx = rstd * (g - xhat * mean(g * xhat)) + dsummed, with g = du * (w + offset)."""
    a = as_rows(a, a.dx.shape)
    rstd = a.rstd.unsqueeze(1)
    xhat = a.x.to(rstd.dtype) * rstd
    du = through(a.dy, affine(xhat, a.weight, a.bias, a.weight_offset), a.gate, a.dgate, a)
    g = affine(du, a.weight, None, a.weight_offset)
    store_input_grad(a.dx, (g - xhat * (g * xhat).mean(1, keepdim=True)) * rstd, a.dsummed)
    store_parameter_grad(a.dweight, du * xhat)
    store_parameter_grad(a.dbias, du)
