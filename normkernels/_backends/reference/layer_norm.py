"""Layer norm in plain PyTorch: the formula, and its forward and backward as the ops want them. N is dim 1 of x."""

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels._backends.reference._rows import (
    affine,
    centred,
    compute_dtype,
    inverse_root,
    store_input_grad,
    store_parameter_grad,
)


def layer_norm_ref(x, residual, weight, bias, eps, weight_offset, activation, slope):
    """y = act((s - mean) * rstd * (w + offset) + b), s = x + residual (Ba et al. 2016, eq. 3 and 4); returns (y, s)."""
    s = x if residual is None else x + residual
    wide = s.to(compute_dtype(x))  # both outputs come from it, so that gradients add up in that dtype
    z, _ = centred(wide, 1)
    u = affine(z * inverse_root(z, 1, eps), weight, bias, weight_offset)
    return act(activation, u, slope).to(x.dtype), wide.to(x.dtype)


def layer_norm_fwd(a):
    """x: (M, N) or (B, N, S); mean, rstd: (M,) or (B, S)."""
    s = a.x if a.residual is None else a.summed.copy_(a.x + a.residual)
    z, mean = centred(s.to(a.mean.dtype), 1)
    rstd = inverse_root(z, 1, a.eps)
    a.mean.copy_(mean.squeeze(1))
    a.rstd.copy_(rstd.squeeze(1))
    a.y.copy_(act(a.activation, affine(z * rstd, a.weight, a.bias, a.weight_offset), a.slope))


def layer_norm_bwd(a):
    """dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed, with g = dy * act'(u) * (w + offset)."""
    mean, rstd = a.mean.unsqueeze(1), a.rstd.unsqueeze(1)
    xhat, _ = centred((a.x.to(mean.dtype) - mean) * rstd, 1)  # the mean kept is rounded
    u = affine(xhat, a.weight, a.bias, a.weight_offset)
    du = a.dy.to(mean.dtype) * derivative(a.activation, u, a.slope)
    g = affine(du, a.weight, None, a.weight_offset)
    g = g - g.mean(1, keepdim=True) - xhat * (g * xhat).mean(1, keepdim=True)
    store_input_grad(a.dx, g * rstd, a.dsummed)
    store_parameter_grad(a.dweight, du * xhat)
    store_parameter_grad(a.dbias, du)
