"""The batch-normalised RNN in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels._backends.reference._recurrent import (
    ParameterGrad,
    activate,
    activation_backward,
    affine,
    norm_backward,
    normalise,
    of_sum,
    steps,
    summed,
    unroll,
    widened,
)  # fmt: skip


class Measured:
    """The population statistics of the steps of a training call, as they are measured."""

    def __init__(self):
        self.of_step = {}

    def of_steps(self):
        """mean and var, (T, columns), in time's order, as constants."""
        return tuple(torch.stack(list(t)) for t in zip(*(self.of_step[t] for t in sorted(self.of_step)), strict=True))


def batch_norm_rnn_ref(
    input, weight_hh, weight, bias, h, mean, var, batch_sizes, *, separate, nonlinearity="tanh", eps=1e-5,
    reverse=False, measured=None,
):  # fmt: skip
    """(y, h): h_t = f[BN_t(weight_hh h_{t-1} + input_t)], each column normalised over the rows of its step.

    ``separate``: h_t = f[BN_t(weight_hh h_{t-1}) + input_t]. mean, var: (T, H), given; None: those of the step itself.
    """
    input, weight_hh, weight, bias, h, mean, var = widened(input, weight_hh, weight, bias, h, mean, var)

    def step(t, p, h):
        a = h @ weight_hh.T
        q = affine(normalise_columns(a if separate else a + p, t, mean, var, eps, measured), weight, bias)
        return (activate(q + p if separate else q, nonlinearity),)

    return unroll(input, batch_sizes, (h,), reverse, step)


def normalise_columns(a, t, mean, var, eps, measured=None):
    """Over the rows of a; with the statistics of step t where they are given."""
    if mean is not None:
        return (a - mean[t]) * torch.rsqrt(var[t] + eps)
    if measured is not None:
        average = a.detach().mean(0)
        measured.of_step[t] = average, (a.detach() - average).square().mean(0)
    return normalise(a, 0, eps)


def measure(a, mean, var, t, training):
    """The statistics of step t, which are measured in training."""
    if training:
        var[t], mean[t] = torch.var_mean(a.to(var.dtype), 0, correction=0)


def batch_norm_rnn_fwd(a):
    """input, y: (total, H); h: (B, H); a: rows of all steps, or of one; mean, var: (T, H), read without training."""
    mean, var, h = a.mean, a.var, a.h
    weight, bias = widened(mean, a.weight, a.bias)[1:]
    for t, rows, n in steps(len(a.input), len(h), a.batch_sizes, a.reverse):
        own, p = summed(a, rows, n)
        measure(a.a[own], mean, var, t, a.training)
        z = affine((a.a[own] - mean[t]) * (var[t] + a.eps).rsqrt(), weight, bias) + (p if a.separate else 0)
        h[:n] = a.y[rows] = activate(z, a.nonlinearity).to(a.y.dtype)


def batch_norm_rnn_bwd(a):
    """dh: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    mean, var, dh = a.mean, a.var, a.dh
    weight, da, sums = widened(mean, a.weight)[1], of_sum(a), ParameterGrad(a.dweight, a.dbias)
    for t, rows, n in steps(len(a.dy), len(dh), a.batch_sizes, not a.reverse):
        rstd = (var[t] + a.eps).rsqrt()
        xhat = (a.a[rows] - mean[t]) * rstd
        dz = activation_backward(a.dy[rows].to(mean.dtype) + dh[:n], a.y[rows].to(mean.dtype), a.nonlinearity)
        sums.add(dz, xhat)
        a.dinput[rows] = dz.to(a.dinput.dtype)
        da[rows] = norm_backward(dz, xhat, rstd, weight, 0 if a.training else None).to(da.dtype)
        dh[:n] = da[rows] @ a.weight_hh
    sums.store()
