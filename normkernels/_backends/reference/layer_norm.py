"""Layer norm in plain PyTorch: the formula, and its forward and backward as the ops want them. N is dim 1 of x."""

from normkernels._backends.reference._rows import (
    affine,
    as_rows,
    centred,
    completed,
    compute_dtype,
    inverse_root,
    store_input_grad,
    store_parameter_grad,
    through,
)


def layer_norm_ref(x, residual, weight, bias, gate, eps, weight_offset, activation, slope):
    """u = (s - mean) * rstd * (w + offset) + b (Ba et al. 2016, eq. 3 and 4), y = act(u) or u act(gate): (y, s)."""
    s = x if residual is None else x + residual
    wide = s.to(compute_dtype(x))  # both outputs come from it, so that gradients add up in that dtype
    z, _ = centred(wide, 1)
    u = affine(z * inverse_root(z, 1, eps), weight, bias, weight_offset)
    return completed(u, gate, activation, slope).to(x.dtype), wide.to(x.dtype)


def layer_norm_fwd(a):
    """y, summed, mean and rstd."""
    a = as_rows(a, a.y.shape)
    forward(a, a.gate)


def layer_norm_bwd(a):
    """dx, dweight, dbias and dgate."""
    a = as_rows(a, a.dx.shape)
    backward(a, a.gate, a.dgate)


def forward(a, gate):
    """x: (M, N) or (B, N, S); mean, rstd: (M,) or (B, S)."""
    s = a.x if a.residual is None else a.summed.copy_(a.x + a.residual)
    z, mean = centred(s.to(a.mean.dtype), 1)
    rstd = inverse_root(z, 1, a.eps)
    a.mean.copy_(mean.squeeze(1))
    a.rstd.copy_(rstd.squeeze(1))
    a.y.copy_(completed(affine(z * rstd, a.weight, a.bias, a.weight_offset), gate, a.activation, a.slope))


def backward(a, gate, dgate):
    """dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed, with g = du * (w + offset)."""
    mean, rstd = a.mean.unsqueeze(1), a.rstd.unsqueeze(1)
    xhat, _ = centred((a.x.to(mean.dtype) - mean) * rstd, 1)  # the mean kept is rounded
    u = affine(xhat, a.weight, a.bias, a.weight_offset)
    du = through(a.dy, u, gate, dgate, a)
    g = affine(du, a.weight, None, a.weight_offset)
    g = g - g.mean(1, keepdim=True) - xhat * (g * xhat).mean(1, keepdim=True)
    store_input_grad(a.dx, g * rstd, a.dsummed)
    store_parameter_grad(a.dweight, du * xhat)
    store_parameter_grad(a.dbias, du)
