"""The batch-normalised RNN in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels.backends.reference._recurrent import (
    ParameterGrad,
    activate,
    activation_backward,
    affine,
    kept,
    norm_backward,
    normalise,
    steps,
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


def batch_norm_rnn_fwd(
    input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, var, training, separate, nonlinearity, eps, reverse
):
    """input, y: (total, H); h: (B, H); a: rows of all steps, or of one; mean, var: (T, H), read without training."""
    weight, bias = widened(mean, weight, bias)[1:]
    for t, rows, n in steps(len(input), len(h), batch_sizes, reverse):
        own, p = kept(rows, a, len(input)), input[rows].to(mean.dtype)
        sums = h[:n] @ weight_hh.T
        a[own] = sums if separate else sums + p
        measure(a[own], mean, var, t, training)
        z = affine((a[own] - mean[t]) * (var[t] + eps).rsqrt(), weight, bias) + (p if separate else 0)
        h[:n] = y[rows] = activate(z, nonlinearity).to(y.dtype)


def batch_norm_rnn_bwd(
    dy, y, a, mean, var, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias, training, nonlinearity, eps,
    reverse,
):  # fmt: skip
    """dh: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    weight, of_a, sums = widened(mean, weight)[1], dinput if da is None else da, ParameterGrad(dweight, dbias)
    for t, rows, n in steps(len(dy), len(dh), batch_sizes, not reverse):
        rstd = (var[t] + eps).rsqrt()
        xhat = (a[rows] - mean[t]) * rstd
        dz = activation_backward(dy[rows].to(mean.dtype) + dh[:n], y[rows].to(mean.dtype), nonlinearity)
        sums.add(dz, xhat)
        dinput[rows] = dz.to(dinput.dtype)
        of_a[rows] = norm_backward(dz, xhat, rstd, weight, 0 if training else None).to(of_a.dtype)
        dh[:n] = of_a[rows] @ weight_hh
    sums.store()
