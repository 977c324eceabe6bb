"""The batch-normalised LSTM in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels.backends.reference._recurrent import (
    ParameterGrad,
    affine,
    kept,
    lstm_gates,
    lstm_gates_backward,
    norm_backward,
    steps,
    unroll,
    widened,
)  # fmt: skip
from normkernels.backends.reference.batch_norm_rnn import measure, normalise_columns


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


def batch_norm_lstm_fwd(
    input, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean, var, gates, cells, raw_cells,
    cell_mean, cell_var, training, separate, eps, reverse,
):  # fmt: skip
    """input, a, gates: (total, 4 H); y, cells, raw_cells: (total, H); mean, var: (T, 4 H); cell_mean, cell_var: (T, H).

    The statistics are read without training.
    """
    weight, bias, cell_weight, cell_bias = widened(mean, weight, bias, cell_weight, cell_bias)[1:]
    for t, rows, n in steps(len(input), len(h), batch_sizes, reverse):
        own, p = kept(rows, a, len(input)), input[rows].to(mean.dtype)
        sums = h[:n] @ weight_hh.T
        a[own] = sums if separate else sums + p
        measure(a[own], mean, var, t, training)
        z = affine((a[own] - mean[t]) * (var[t] + eps).rsqrt(), weight, bias)
        i, f, g, o = lstm_gates(z + (p if separate else 0))
        gates[own] = torch.cat([i, f, g, o], -1).to(gates.dtype)
        cell = normalised = f * c[:n] + i * g
        if cell_mean is not None:
            measure(cell, cell_mean, cell_var, t, training)
            normalised = affine((cell - cell_mean[t]) * (cell_var[t] + eps).rsqrt(), cell_weight, cell_bias)
        if raw_cells is not None:
            raw_cells[own], cell = cell, normalised
        c[:n] = cells[own] = cell
        h[:n] = y[rows] = (o * torch.tanh(normalised)).to(y.dtype)


def batch_norm_lstm_bwd(
    dy, gates, cells, raw_cells, cell_mean, cell_var, previous_cells, a, mean, var, weight_hh, weight, cell_weight,
    cell_bias, batch_sizes, dh, dc, dinput, da, dweight, dbias, dcell_weight, dcell_bias, training, eps, reverse,
):  # fmt: skip
    """dh, dc: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    weight, cell_weight, cell_bias = widened(mean, weight, cell_weight, cell_bias)[1:]
    of_a, dims = dinput if da is None else da, 0 if training else None
    sums, cell_sums = ParameterGrad(dweight, dbias), ParameterGrad(dcell_weight, dcell_bias)
    for t, rows, n in steps(len(dy), len(dh), batch_sizes, not reverse):
        i, f, g, o = gates[rows].to(mean.dtype).chunk(4, -1)
        normalised = cells[rows]
        if cell_mean is not None:
            raw, cell_rstd = cells if raw_cells is None else raw_cells, (cell_var[t] + eps).rsqrt()
            cell_xhat = (raw[rows] - cell_mean[t]) * cell_rstd
            normalised = affine(cell_xhat, cell_weight, cell_bias)
        y = dy[rows].to(mean.dtype) + dh[:n]
        tanh = torch.tanh(normalised)
        dcell = y * o * (1 - tanh * tanh) + (dc[:n] if cell_mean is None or raw_cells is not None else 0)
        if cell_mean is not None:
            cell_sums.add(dcell, cell_xhat)
            dcell = norm_backward(dcell, cell_xhat, cell_rstd, cell_weight, dims)
            dcell = dcell + (dc[:n] if raw_cells is None else 0)
        dz, dc[:n] = lstm_gates_backward(dcell, y * tanh, i, f, g, o, previous_cells[rows])
        rstd = (var[t] + eps).rsqrt()
        xhat = (a[rows] - mean[t]) * rstd
        sums.add(dz, xhat)
        dinput[rows] = dz.to(dinput.dtype)
        of_a[rows] = norm_backward(dz, xhat, rstd, weight, dims).to(of_a.dtype)
        dh[:n] = of_a[rows] @ weight_hh
    sums.store()
    cell_sums.store()
