"""RMS norm in plain PyTorch: the formula, and its forward and backward as the ops want them. N is dim 1 of x."""

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels.backends.reference._rows import (
    affine,
    compute_dtype,
    inverse_root,
    store_input_grad,
    store_parameter_grad,
)


def rms_norm_ref(x, residual, weight, eps, weight_offset, activation, slope):
    """y = act(s / sqrt(mean(s^2) + eps) * (w + offset)), s = x + residual (Zhang & Sennrich 2019, eq. 4): (y, s)."""
    s = x if residual is None else x + residual
    z = s.to(compute_dtype(x))  # both outputs come from it, so that gradients add up in that dtype
    u = affine(z * inverse_root(z, 1, eps), weight, None, weight_offset)
    return act(activation, u, slope).to(x.dtype), z.to(x.dtype)


def rms_norm_fwd(x, residual, weight, y, summed, rstd, eps, weight_offset, activation, slope):
    """x: (M, N); rstd: (M,)."""
    if residual is not None:
        x = summed.copy_(x + residual)
    z = x.to(rstd.dtype)
    rstd.copy_(inverse_root(z, 1, eps).squeeze(1))
    y.copy_(act(activation, affine(z * rstd.unsqueeze(1), weight, None, weight_offset), slope))


def rms_norm_bwd(dy, dsummed, x, weight, rstd, dx, dweight, weight_offset, activation, slope):
    """dx = rstd * (g - xhat * mean(g * xhat)) + dsummed, with g = dy * act'(u) * (w + offset)."""
    xhat = x.to(rstd.dtype) * rstd.unsqueeze(1)
    du = dy.to(rstd.dtype) * derivative(activation, affine(xhat, weight, None, weight_offset), slope)
    g = affine(du, weight, None, weight_offset)
    store_input_grad(dx, (g - xhat * (g * xhat).mean(1, keepdim=True)) * rstd.unsqueeze(1), dsummed)
    store_parameter_grad(dweight, du * xhat)
