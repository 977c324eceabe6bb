"""The layer-normalised LSTM in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels._backends.reference._recurrent import (
    ParameterGrad,
    affine,
    groups_backward,
    lstm_backward,
    lstm_gates,
    lstm_hand_on,
    lstm_step,
    normalise,
    normalise_groups,
    of_sum,
    row_statistics,
    spread,
    steps,
    summed,
    unroll,
    widened,
)  # fmt: skip


def layer_norm_lstm_ref(
    input, weight_hh, weight, bias, cell_weight, cell_bias, h, c, batch_sizes, *, groups, separate, norm_cell, eps=1e-5,
    reverse=False, weight_hr=None,
):  # fmt: skip
    """(y, h, c): gates LN(weight_hh h) + input, c = f c + i g, h = o tanh(LN(c)) (Ba et al. 2016, eq. 20 to 22).

    Without ``separate`` the gates are LN(weight_hh h + input). ``norm_cell``: ``"carried"`` hands LN(c) on to the next
    step, ``"output"`` c itself, None normalises no cell. ``weight_hr`` projects every h.
    """
    input, weight_hh, weight, bias, cell_weight, cell_bias, h, c, weight_hr = widened(
        input, weight_hh, weight, bias, cell_weight, cell_bias, h, c, weight_hr
    )

    def step(_, p, h, c):
        a = h @ weight_hh.T
        z = affine(normalise_groups(a if separate else a + p, groups, eps), weight, bias)
        i, f, g, o = lstm_gates(z + p if separate else z)
        c = f * c + i * g
        normalised = affine(normalise(c, -1, eps), cell_weight, cell_bias) if norm_cell else c
        h = o * torch.tanh(normalised)
        return h if weight_hr is None else h @ weight_hr.T, normalised if norm_cell == "carried" else c

    return unroll(input, batch_sizes, (h, c), reverse, step)


def layer_norm_lstm_fwd(a):
    """input, a, gates: (total, 4 H); y, cells, raw_cells: (total, H); mean, rstd: (total, groups); h, c: (B, H)."""
    mean, rstd, hidden = a.mean, a.rstd, a.h.shape[1]
    weight, bias, cell_weight, cell_bias = widened(mean, a.weight, a.bias, a.cell_weight, a.cell_bias)[1:]
    for _, rows, n in steps(len(a.input), len(a.h), a.batch_sizes, a.reverse):
        own, p = summed(a, rows, n)
        mean[own], rstd[own] = row_statistics(a.a[own].to(mean.dtype), a.groups, a.eps)
        xhat = (a.a[own] - spread(mean[own], a.groups, hidden)) * spread(rstd[own], a.groups, hidden)
        gates = lstm_gates(affine(xhat, weight, bias) + (p if a.separate else 0))
        cell = normalised = lstm_step(a, own, gates, n)
        if a.cell_mean is not None:
            a.cell_mean[own], a.cell_rstd[own] = row_statistics(cell, [1], a.eps)
            normalised = affine((cell - a.cell_mean[own]) * a.cell_rstd[own], cell_weight, cell_bias)
        lstm_hand_on(a, rows, own, n, cell, normalised, gates[3])


def layer_norm_lstm_bwd(a):
    """dh, dc: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    mean, dh, hidden, da = a.mean, a.dh, a.dh.shape[1], of_sum(a)
    weight, cell_weight, cell_bias = widened(mean, a.weight, a.cell_weight, a.cell_bias)[1:]
    sums, cell_sums = ParameterGrad(a.dweight, a.dbias), ParameterGrad(a.dcell_weight, a.dcell_bias)
    raw, cell_norm = a.cells if a.raw_cells is None else a.raw_cells, None
    for _, rows, n in steps(len(a.dy), len(dh), a.batch_sizes, not a.reverse):
        if a.cell_mean is not None:
            cell_xhat = (raw[rows] - a.cell_mean[rows]) * a.cell_rstd[rows]
            cell_norm = cell_xhat, a.cell_rstd[rows], cell_weight, cell_bias, -1
        dz = lstm_backward(a, rows, n, cell_norm, cell_sums)
        rstd = spread(a.rstd[rows], a.groups, hidden)
        xhat = (a.a[rows] - spread(mean[rows], a.groups, hidden)) * rstd
        sums.add(dz, xhat)
        a.dinput[rows] = dz.to(a.dinput.dtype)
        da[rows] = groups_backward(dz, xhat, rstd, weight, a.groups).to(da.dtype)
        dh[:n] = da[rows] @ a.weight_hh
    sums.store()
    cell_sums.store()
