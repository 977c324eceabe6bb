"""Layer norm in plain PyTorch: the formula, and its forward and backward as the ops want them. N is dim 1 of x."""

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels.backends.reference._rows import (
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


def layer_norm_fwd(x, residual, weight, bias, y, summed, mean, rstd, eps, weight_offset, activation, slope):
    """x: (M, N) or (B, N, S); mean, rstd: (M,) or (B, S)."""
    if residual is not None:
        x = summed.copy_(x + residual)
    z, found = centred(x.to(mean.dtype), 1)
    r = inverse_root(z, 1, eps)
    mean.copy_(found.squeeze(1))
    rstd.copy_(r.squeeze(1))
    y.copy_(act(activation, affine(z * r, weight, bias, weight_offset), slope))


def layer_norm_bwd(
    dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias, weight_offset, activation, slope
):  # fmt: skip
    """dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed, with g = dy * act'(u) * (w + offset)."""
    xhat, _ = centred((x.to(mean.dtype) - mean.unsqueeze(1)) * rstd.unsqueeze(1), 1)  # the mean kept is rounded
    du = dy.to(mean.dtype) * derivative(activation, affine(xhat, weight, bias, weight_offset), slope)
    g = affine(du, weight, None, weight_offset)
    g = g - g.mean(1, keepdim=True) - xhat * (g * xhat).mean(1, keepdim=True)
    store_input_grad(dx, g * rstd.unsqueeze(1), dsummed)
    store_parameter_grad(dweight, du * xhat)
    store_parameter_grad(dbias, du)
