"""RMS norm in plain PyTorch: the formula, and its forward and backward as the ops want them. N is dim 1 of x."""

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels._backends.reference._rows import (
    affine,
    compute_dtype,
    inverse_root,
    store_input_grad,
    store_parameter_grad,
)


def rms_norm_ref(x, residual, weight, bias, eps, weight_offset, activation, slope):
    """y = act(s / sqrt(mean(s^2) + eps) * (w + offset) + b), s = x + residual (Zhang et al. 2019, eq. 4): (y, s)."""
    s = x if residual is None else x + residual
    z = s.to(compute_dtype(x))  # both outputs come from it, so that gradients add up in that dtype
    u = affine(z * inverse_root(z, 1, eps), weight, bias, weight_offset)
    return act(activation, u, slope).to(x.dtype), z.to(x.dtype)


def rms_norm_fwd(a):
    """x: (M, N); rstd: (M,)."""
    s = a.x if a.residual is None else a.summed.copy_(a.x + a.residual)
    z = s.to(a.rstd.dtype)
    rstd = inverse_root(z, 1, a.eps)
    a.rstd.copy_(rstd.squeeze(1))
    a.y.copy_(act(a.activation, affine(z * rstd, a.weight, a.bias, a.weight_offset), a.slope))


def rms_norm_bwd(a):
    """dx = rstd * (g - xhat * mean(g * xhat)) + dsummed, with g = dy * act'(u) * (w + offset)."""
    rstd = a.rstd.unsqueeze(1)
    xhat = a.x.to(rstd.dtype) * rstd
    du = a.dy.to(rstd.dtype) * derivative(a.activation, affine(xhat, a.weight, a.bias, a.weight_offset), a.slope)
    g = affine(du, a.weight, None, a.weight_offset)
    store_input_grad(a.dx, (g - xhat * (g * xhat).mean(1, keepdim=True)) * rstd, a.dsummed)
    store_parameter_grad(a.dweight, du * xhat)
    store_parameter_grad(a.dbias, du)
