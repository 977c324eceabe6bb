"""The layer-normalised LSTM in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels.backends.reference._recurrent import (
    ParameterGrad,
    affine,
    groups_backward,
    kept,
    lstm_gates,
    lstm_gates_backward,
    norm_backward,
    normalise,
    normalise_groups,
    row_statistics,
    spread,
    steps,
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


def layer_norm_lstm_fwd(
    input, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean, rstd, gates, cells,
    raw_cells, cell_mean, cell_rstd, groups, separate, eps, reverse,
):  # fmt: skip
    """input, a, gates: (total, 4 H); y, cells, raw_cells: (total, H); mean, rstd: (total, groups); h, c: (B, H)."""
    total, hidden = len(input), h.shape[1]
    weight, bias, cell_weight, cell_bias = widened(mean, weight, bias, cell_weight, cell_bias)[1:]
    for _, rows, n in steps(total, len(h), batch_sizes, reverse):
        own, p = kept(rows, a, total), input[rows].to(mean.dtype)
        sums = h[:n] @ weight_hh.T
        a[own] = sums if separate else sums + p
        mean[own], rstd[own] = row_statistics(a[own].to(mean.dtype), groups, eps)
        xhat = (a[own] - spread(mean[own], groups, hidden)) * spread(rstd[own], groups, hidden)
        i, f, g, o = lstm_gates(affine(xhat, weight, bias) + (p if separate else 0))
        gates[own] = torch.cat([i, f, g, o], -1).to(gates.dtype)
        cell = normalised = f * c[:n] + i * g
        if cell_mean is not None:
            cell_mean[own], cell_rstd[own] = row_statistics(cell, [1], eps)
            normalised = affine((cell - cell_mean[own]) * cell_rstd[own], cell_weight, cell_bias)
        if raw_cells is not None:
            raw_cells[own], cell = cell, normalised
        c[:n] = cells[own] = cell
        h[:n] = y[rows] = (o * torch.tanh(normalised)).to(y.dtype)


def layer_norm_lstm_bwd(
    dy, gates, cells, raw_cells, cell_mean, cell_rstd, previous_cells, a, mean, rstd, weight_hh, weight, cell_weight,
    cell_bias, batch_sizes, dh, dc, dinput, da, dweight, dbias, dcell_weight, dcell_bias, groups, reverse,
):  # fmt: skip
    """dh, dc: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    weight, cell_weight, cell_bias = widened(mean, weight, cell_weight, cell_bias)[1:]
    of_a, hidden = dinput if da is None else da, dh.shape[1]
    sums, cell_sums = ParameterGrad(dweight, dbias), ParameterGrad(dcell_weight, dcell_bias)
    for _, rows, n in steps(len(dy), len(dh), batch_sizes, not reverse):
        i, f, g, o = gates[rows].to(mean.dtype).chunk(4, -1)
        normalised = cells[rows]
        if cell_mean is not None:
            raw = cells if raw_cells is None else raw_cells
            cell_xhat = (raw[rows] - cell_mean[rows]) * cell_rstd[rows]
            normalised = affine(cell_xhat, cell_weight, cell_bias)
        y = dy[rows].to(mean.dtype) + dh[:n]
        t = torch.tanh(normalised)
        dcell = y * o * (1 - t * t) + (dc[:n] if cell_mean is None or raw_cells is not None else 0)
        if cell_mean is not None:
            cell_sums.add(dcell, cell_xhat)
            dcell = norm_backward(dcell, cell_xhat, cell_rstd[rows], cell_weight, -1)
            dcell = dcell + (dc[:n] if raw_cells is None else 0)
        dz, dc[:n] = lstm_gates_backward(dcell, y * t, i, f, g, o, previous_cells[rows])
        spreads = spread(rstd[rows], groups, hidden)
        xhat = (a[rows] - spread(mean[rows], groups, hidden)) * spreads
        sums.add(dz, xhat)
        dinput[rows] = dz.to(dinput.dtype)
        of_a[rows] = groups_backward(dz, xhat, spreads, weight, groups).to(of_a.dtype)
        dh[:n] = of_a[rows] @ weight_hh
    sums.store()
    cell_sums.store()
