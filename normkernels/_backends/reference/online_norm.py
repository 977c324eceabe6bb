"""Online Normalization (Chiley et al. 2019, arXiv:1905.05894): the paper's loop, one sample after another.

x, skip, y, dy, dx, dskip are contiguous (N, C, S), or (N, S, C) with ``channels_last``. mean, rstd: (N, C), of the
state that sample n met. xhat_mean, xhat_square: (N, C), the means over a sample of xhat = (x - mean) * rstd and of its
square, absent where S is 1. gain: (N,), of layer scaling, absent without it. A clamp of inf is none.
"""

import torch

from normkernels._activations import activation as act
from normkernels._activations import derivative
from normkernels._backends.reference._channels import affine, in_planes


def counts(*moments):
    """Whether a sample moves a channel's state: not if its moments are not finite, in the state's dtype."""
    return torch.stack([m.isfinite() for m in moments]).all(0)


def statistics(x, mean, var, rates):
    """The means (N, C) and variances that each sample meets, and the last ones (eqs. 8a, 8b). x: (N, C, S)"""
    means, variances = [], []
    for n in range(len(x)):
        means.append(mean)
        variances.append(var)
        if rates is None:
            continue
        m, rate = x[n].mean(1), rates[n].to(x.dtype)
        s = (x[n] - m[:, None]).square().mean(1)
        seen = counts(4 * (s + m * m))  # so that (m - mean)^2 is finite too
        var = torch.where(seen, var + rate * (s - var) + rate * (1 - rate) * (m - mean).square(), var)
        mean = torch.where(seen, mean + rate * (m - mean), mean)
    none = x.new_empty(0, x.shape[1])
    return torch.stack(means) if means else none, torch.stack(variances) if means else none, mean, var


def online_norm_ref(x, skip, weight, bias, mean, rstd, layer_scaling, ls_eps, clamp, activation, slope):
    """y of x (N, C, S), and the gain of layer scaling or None (eqs. 8 to 10); mean, rstd: (N, C), constants."""
    z = affine((x.to(mean.dtype) - mean[..., None]) * rstd[..., None], weight, bias, None)
    gain = torch.rsqrt(z.square().mean((1, 2)) + ls_eps) if layer_scaling else None
    return act(activation, affine(guarded(z, gain, clamp), None, None, skip), slope).to(x.dtype), gain


def guarded(z, gain, clamp):
    """z scaled or clamped"""
    return (z if gain is None else z * gain[:, None, None]).clamp(-clamp, clamp)


def online_norm_fwd(a):
    a = in_planes(a)
    x = a.x.to(a.mean.dtype)
    means, variances, *last = statistics(x, a.running_mean, a.running_var, a.rates)
    a.mean.copy_(means)
    a.rstd.copy_(torch.rsqrt(variances + a.eps))
    xhat = (x - a.mean[..., None]) * a.rstd[..., None]
    z = affine(xhat, a.weight, a.bias, None)
    if a.xhat_mean is not None:
        a.xhat_mean.copy_(xhat.mean(2))
        a.xhat_square.copy_(xhat.square().mean(2))
    if a.gain is not None:
        a.gain.copy_(torch.rsqrt(z.square().mean((1, 2)) + a.ls_eps))
    a.y.copy_(act(a.activation, affine(guarded(z, a.gain, a.clamp), None, None, a.skip), a.slope))
    if a.rates is not None:
        a.new_mean.copy_(last[0])
        a.new_var.copy_(last[1])


def gradients(
    dy, x, skip, weight, bias, mean, rstd, gain, epsilon_y, epsilon_1, alpha, stable, clamp, activation, slope
):  # fmt: skip
    """dx, dskip, dweight, dbias, new accumulators; epsilon_y None: mean and rstd are constants. All (N, C, S)."""
    xhat = (x.to(mean.dtype) - mean[..., None]) * rstd[..., None]
    z = affine(xhat, weight, bias, None)
    out = guarded(z, gain, clamp)
    du = dy.to(z.dtype) * derivative(activation, affine(out, None, None, skip), slope)
    dz = du * (z.abs() <= clamp)
    if gain is not None:  # eq. 10
        dz = (dz - out * (dz * out).mean((1, 2), keepdim=True)) * gain[:, None, None]
    dx, state = control(affine(dz, weight, None, None), xhat, rstd, epsilon_y, epsilon_1, 1 - alpha, stable)
    return dx, du, (dz * xhat).sum((0, 2)), dz.sum((0, 2)), *state


def control(g, xhat, rstd, epsilon_y, epsilon_1, p, stable):
    """dx and the new accumulators (eqs. 11a to 12b); all (N, C, S)."""
    if epsilon_y is None:
        return g * rstd[..., None], (None, None)
    dx = []
    for n in range(len(g)):
        square = xhat[n].square().mean(1)
        q = torch.minimum(torch.full_like(square, p), 1 / square.detach()) if stable else p
        h = g[n] - (q * epsilon_y)[:, None] * xhat[n]
        dx.append(h * rstd[n, :, None] - (p * epsilon_1)[:, None])
        seen = counts(square, g[n].mean(1), (g[n] * xhat[n]).mean(1))
        epsilon_y = torch.where(seen, epsilon_y + (h * xhat[n]).mean(1), epsilon_y)
        epsilon_1 = torch.where(seen, epsilon_1 + dx[n].mean(1), epsilon_1)
    return torch.stack(dx) if dx else g, (epsilon_y, epsilon_1)


def online_norm_bwd(a):
    a = in_planes(a)
    found = gradients(
        a.dy, a.x, a.skip, a.weight, a.bias, a.mean, a.rstd, a.gain, a.epsilon_y, a.epsilon_1, a.alpha, a.stable,
        a.clamp, a.activation, a.slope,
    )  # fmt: skip
    results = a.dx, a.dskip, a.dweight, a.dbias, a.new_epsilon_y, a.new_epsilon_1
    for result, value in zip(results, found, strict=True):
        if result is not None:
            result.copy_(value)
