"""The batch-normalised LSTM in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels._backends.reference._recurrent import (
    ParameterGrad,
    affine,
    lstm_backward,
    lstm_gates,
    lstm_hand_on,
    lstm_step,
    norm_backward,
    of_sum,
    steps,
    summed,
    unroll,
    widened,
)  # fmt: skip
from normkernels._backends.reference.batch_norm_rnn import measure, normalise_columns


def batch_norm_lstm_ref(
    input, weight_hh, weight, bias, cell_weight, cell_bias, h, c, mean, var, cell_mean, cell_var, batch_sizes, *,
    separate, norm_cell, eps=1e-5, reverse=False, measured=(None, None),
):  # fmt: skip
    """(y, h, c): gates BN_t(weight_hh h) + input, c = f c + i g, h = o tanh(BN_t(c)) (Cooijmans et al. 2017).

    Without ``separate`` the gates are BN_t(weight_hh h + input). ``norm_cell``: ``"carried"`` hands BN_t(c) on to the
    next step, ``"output"`` c itself, None normalises no cell. mean, var: (T, 4 H), cell_mean, cell_var: (T, H), given;
    None: those of the step itself.
    """
    input, weight_hh, weight, bias, cell_weight, cell_bias, h, c, mean, var, cell_mean, cell_var = widened(
        input, weight_hh, weight, bias, cell_weight, cell_bias, h, c, mean, var, cell_mean, cell_var
    )

    def step(t, p, h, c):
        a = h @ weight_hh.T
        z = affine(normalise_columns(a if separate else a + p, t, mean, var, eps, measured[0]), weight, bias)
        i, f, g, o = lstm_gates(z + p if separate else z)
        c = normalised = f * c + i * g
        if norm_cell:
            normalised = affine(normalise_columns(c, t, cell_mean, cell_var, eps, measured[1]), cell_weight, cell_bias)
        return o * torch.tanh(normalised), normalised if norm_cell == "carried" else c

    return unroll(input, batch_sizes, (h, c), reverse, step)


def batch_norm_lstm_fwd(a):
    """input, a, gates: (total, 4 H); y, cells, raw_cells: (total, H); mean, var: (T, 4 H); cell_mean, cell_var: (T, H).

    The statistics are read without training.
    """
    mean, var = a.mean, a.var
    weight, bias, cell_weight, cell_bias = widened(mean, a.weight, a.bias, a.cell_weight, a.cell_bias)[1:]
    for t, rows, n in steps(len(a.input), len(a.h), a.batch_sizes, a.reverse):
        own, p = summed(a, rows, n)
        measure(a.a[own], mean, var, t, a.training)
        z = affine((a.a[own] - mean[t]) * (var[t] + a.eps).rsqrt(), weight, bias)
        gates = lstm_gates(z + (p if a.separate else 0))
        cell = normalised = lstm_step(a, own, gates, n)
        if a.cell_mean is not None:
            measure(cell, a.cell_mean, a.cell_var, t, a.training)
            cell_xhat = (cell - a.cell_mean[t]) * (a.cell_var[t] + a.eps).rsqrt()
            normalised = affine(cell_xhat, cell_weight, cell_bias)
        lstm_hand_on(a, rows, own, n, cell, normalised, gates[3])


def batch_norm_lstm_bwd(a):
    """dh, dc: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    mean, dh, da, dims = a.mean, a.dh, of_sum(a), 0 if a.training else None
    weight, cell_weight, cell_bias = widened(mean, a.weight, a.cell_weight, a.cell_bias)[1:]
    sums, cell_sums = ParameterGrad(a.dweight, a.dbias), ParameterGrad(a.dcell_weight, a.dcell_bias)
    raw, cell_norm = a.cells if a.raw_cells is None else a.raw_cells, None
    for t, rows, n in steps(len(a.dy), len(dh), a.batch_sizes, not a.reverse):
        if a.cell_mean is not None:
            cell_rstd = (a.cell_var[t] + a.eps).rsqrt()
            cell_norm = (raw[rows] - a.cell_mean[t]) * cell_rstd, cell_rstd, cell_weight, cell_bias, dims
        dz = lstm_backward(a, rows, n, cell_norm, cell_sums)
        rstd = (a.var[t] + a.eps).rsqrt()
        xhat = (a.a[rows] - mean[t]) * rstd
        sums.add(dz, xhat)
        a.dinput[rows] = dz.to(a.dinput.dtype)
        da[rows] = norm_backward(dz, xhat, rstd, weight, dims).to(da.dtype)
        dh[:n] = da[rows] @ a.weight_hh
    sums.store()
    cell_sums.store()
