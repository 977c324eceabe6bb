"""Layer norm in plain PyTorch: the formula, and its forward and backward as the ops want them. N is dim 1 of x."""

import torch

from normkernels.backends.reference._activations import activation as act
from normkernels.backends.reference._activations import derivative
from normkernels.backends.reference._rows import affine, compute_dtype, store_input_grad, store_parameter_grad


def layer_norm_ref(x, residual, weight, bias, eps, weight_offset, activation, slope):
    """y = act((s - mean) * rstd * (w + offset) + b), s = x + residual (Ba et al. 2016, eq. 3 and 4); returns (y, s)."""
    s = x if residual is None else x + residual
    z = s.to(compute_dtype(x))
    mean = z.mean(1, keepdim=True)
    variance = (z - mean).square().mean(1, keepdim=True)
    u = affine((z - mean) / torch.sqrt(variance + eps), weight, bias, weight_offset)
    return act(activation, u, slope).to(x.dtype), s


def layer_norm_fwd(x, residual, weight, bias, y, summed, mean, rstd, eps, weight_offset, activation, slope):
    """x: (M, N) or (B, N, S); mean, rstd: (M,) or (B, S)."""
    if residual is not None:
        x = summed.copy_(x + residual)
    z = x.to(mean.dtype)
    mean.copy_(z.mean(1))
    rstd.copy_(torch.rsqrt((z - mean.unsqueeze(1)).square().mean(1) + eps))
    xhat = (z - mean.unsqueeze(1)) * rstd.unsqueeze(1)
    y.copy_(act(activation, affine(xhat, weight, bias, weight_offset), slope))


def layer_norm_bwd(
    dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias, weight_offset, activation, slope
):  # fmt: skip
    """dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed, with g = dy * act'(u) * (w + offset)."""
    xhat = (x.to(mean.dtype) - mean.unsqueeze(1)) * rstd.unsqueeze(1)
    du = dy.to(mean.dtype) * derivative(activation, affine(xhat, weight, bias, weight_offset), slope)
    g = affine(du, weight, None, weight_offset)
    centred = g - g.mean(1, keepdim=True) - xhat * (g * xhat).mean(1, keepdim=True)
    store_input_grad(dx, centred * rstd.unsqueeze(1), dsummed)
    store_parameter_grad(dweight, du * xhat)
    store_parameter_grad(dbias, du)
