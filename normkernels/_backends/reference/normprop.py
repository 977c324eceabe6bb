"""Normalization Propagation in plain PyTorch: the formula, and its epilogue as the ops want it."""

import math

import torch

from normkernels._activations import SELU_ALPHA, SELU_SCALE, derivative
from normkernels._activations import activation as act
from normkernels._backends.reference._rows import compute_dtype
from normkernels._backends.reference.weight_norm import weight_norm_ref
from normkernels.moments import activation_moments, prelu_moments


def normprop_ref(input, weight, gain, bias, slope, product, activation, leak):
    """(act(gain W x / |W| + bias) - c2) / c1 (Arpit et al. 2016, eq. 9, 11, 12); product(x, W) is W x."""
    filters = weight_norm_ref(weight.flatten(1), gain).view(weight.shape)
    u = along_channels(product(input, filters.to(input.dtype)).to(filters.dtype), weight)
    if bias is not None:
        u = u + channelwise(bias.to(u.dtype), u)
    if activation == "prelu":
        slope = channelwise(slope.to(u.dtype), u)
        c1, c2 = prelu_moments(slope)
        y = (torch.where(u > 0, u, slope * u) - c2) / c1
    else:
        c1, c2, _ = activation_moments(activation, leak)
        y = (act(activation, u, leak) - c2) / c1
    return along_channels(y, weight).to(input.dtype)


def along_channels(u, weight):
    """A linear layer's channels lie last: swap them with dim 1, and back."""
    return u.movedim(-1, 1) if weight.dim() == 2 and u.dim() > 2 else u


def channelwise(p, u):
    """p (C,) beside u (N, C, *)."""
    return p.view(-1, *[1] * (u.dim() - 2)) if u.dim() > 1 else p


def _shape(channels_last):
    return (1, 1, -1) if channels_last else (1, -1, 1)


def _biased(u, bias, slope, channels_last):
    """u + bias and the slope of prelu, in the compute type."""
    z, shape = u.to(compute_dtype(u)), _shape(channels_last)
    return (
        z if bias is None else z + bias.to(z.dtype).view(shape),
        None if slope is None else slope.to(z.dtype).view(shape),
    )


def normprop_fwd(a):
    """y = scale act(u + bias) + shift, within [low, high] where act lies strictly between the kinks. u may be y."""
    u, slope = _biased(a.u, a.bias, a.slope, a.channels_last)
    if a.activation == "prelu":
        c1, c2 = prelu_moments(slope)
        a.y.copy_((torch.where(u > 0, u, slope * u) - c2) / c1)
        return
    f = act(a.activation, u, a.leak)
    y = f * a.scale + a.shift
    a.y.copy_(torch.where((f > a.kink_low) & (f < a.kink_high), y.clamp(a.low, a.high), y))


def normprop_bwd(a):
    """du = scale dy act'(u + bias), from y or from u; dbias = sum du."""
    saved, slope = _biased(a.saved, None if a.from_output else a.bias, a.slope, a.channels_last)
    d, along = a.dy.to(saved.dtype), None
    if slope is not None:
        d = d / prelu_moments(slope)[0]
        along = d * _slope_gradient(saved, slope)
        d = d * torch.where(saved > 0, torch.ones_like(slope), slope)
    elif a.from_output:
        d = d * a.scale * derivative_from_output(a.activation, saved, a.leak, a.scale, a.shift, a.low, a.high)
    else:
        d = d * a.scale * derivative(a.activation, saved, a.leak)
    dims = (0, 1) if a.channels_last else (0, 2)
    for sums, terms in ((a.dbias, d), (a.dslope, along)):
        if sums is not None and terms is not None:
            sums.copy_(terms.sum(dims))
    a.du.copy_(d)


def _slope_gradient(z, a):
    """c1 dy/da of y = (prelu(z) - c2) / c1, the gradients through c1(a) and c2(a) included."""
    c1, c2 = prelu_moments(a)
    y = (torch.where(z > 0, z, a * z) - c2) / c1
    return z.clamp(max=0) + 1 / math.sqrt(2 * math.pi) - y * (a + (1 - a) / math.pi) / (2 * c1)


def derivative_from_output(activation, y, leak, scale, shift, low, high):
    """act'(u) from y = scale act(u) + shift, for the activations whose output tells."""
    f = (y - shift) / scale
    smooth = {
        "tanh": lambda: (1 - f * f).clamp(min=0),
        "sigmoid": lambda: (f * (1 - f)).clamp(min=0),
        "elu": lambda: torch.where(f > 0, 1.0, f + 1).clamp(min=0),
        "selu": lambda: torch.where(f > 0, SELU_SCALE, f + SELU_SCALE * SELU_ALPHA).clamp(min=0),
        "softplus": lambda: -torch.expm1(-f.clamp(min=0)),
        "softsign": lambda: (1 - f.abs()).clamp(min=0).square(),
    }
    if activation in smooth:
        return smooth[activation]()
    inner, outer = 1 / 6 if activation == "hardsigmoid" else 1.0, leak if activation == "leaky_relu" else 0.0
    return torch.where((y >= low) & (y <= high), torch.full_like(y, inner), outer)
