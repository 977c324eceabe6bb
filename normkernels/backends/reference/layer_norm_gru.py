"""The layer-normalised GRU in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels.backends.reference._recurrent import (
    ParameterGrad,
    affine,
    groups_backward,
    kept,
    normalise_groups,
    row_statistics,
    spread,
    steps,
    unroll,
    widened,
)  # fmt: skip


def layer_norm_gru_ref(
    input, weight_hh, weight, bias, h, batch_sizes, *, groups, separate, eps=1e-5, reverse=False
):  # fmt: skip
    """(y, h): with q = LN(weight_hh h), r, z = sigmoid(input + q), n = tanh(input + r q), h = n + z (h - n).

    Ba et al. 2016, eq. 23 to 26. Without ``separate``, q = LN(weight_hh h + input) and input is added nowhere else.
    """
    input, weight_hh, weight, bias, h = widened(input, weight_hh, weight, bias, h)

    def step(_, p, h):
        a = h @ weight_hh.T
        q = affine(normalise_groups(a if separate else a + p, groups, eps), weight, bias)
        _r, z, n = gru_gates(q, p if separate else torch.zeros_like(p))
        return (n + z * (h - n),)

    return unroll(input, batch_sizes, (h,), reverse, step)


def gru_gates(q, p):
    """r, z, n of the normalised recurrent sums q and the input's p."""
    (q_r, q_z, q_n), (p_r, p_z, p_n) = q.chunk(3, -1), p.chunk(3, -1)
    r = torch.sigmoid(p_r + q_r)
    return r, torch.sigmoid(p_z + q_z), torch.tanh(p_n + r * q_n)


def layer_norm_gru_fwd(
    input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, gates, groups, separate, eps, reverse
):
    """input, a, gates: (total, 3 H); y: (total, H); mean, rstd: (total, groups); h: (B, H)."""
    total, hidden = len(input), h.shape[1]
    weight, bias = widened(mean, weight, bias)[1:]
    for _, rows, n in steps(total, len(h), batch_sizes, reverse):
        own, p = kept(rows, a, total), input[rows].to(mean.dtype)
        sums = h[:n] @ weight_hh.T
        a[own] = sums if separate else sums + p
        mean[own], rstd[own] = row_statistics(a[own].to(mean.dtype), groups, eps)
        xhat = (a[own] - spread(mean[own], groups, hidden)) * spread(rstd[own], groups, hidden)
        r, z, c = gru_gates(affine(xhat, weight, bias), p if separate else torch.zeros_like(p))
        gates[own] = torch.cat([r, z, c], -1).to(gates.dtype)
        h[:n] = y[rows] = (c + z * (h[:n] - c)).to(y.dtype)


def layer_norm_gru_bwd(
    dy, gates, previous, a, mean, rstd, weight_hh, weight, bias, batch_sizes, dh, dinput, da, dweight, dbias, groups,
    reverse,
):  # fmt: skip
    """previous: (total, H), h before each step; dh: (B, H), of the last state and then of the first."""
    weight, bias = widened(mean, weight, bias)[1:]
    of_a, hidden, sums = dinput if da is None else da, dh.shape[1], ParameterGrad(dweight, dbias)
    for _, rows, n in steps(len(dy), len(dh), batch_sizes, not reverse):
        spreads = spread(rstd[rows], groups, hidden)
        xhat = (a[rows] - spread(mean[rows], groups, hidden)) * spreads
        q_n = affine(xhat, weight, bias).chunk(3, -1)[2]
        r, z, c = gates[rows].to(mean.dtype).chunk(3, -1)
        dh_new = dy[rows].to(mean.dtype) + dh[:n]
        dn = dh_new * (1 - z) * (1 - c * c)
        dr, dz = dn * q_n * r * (1 - r), dh_new * (previous[rows] - c) * z * (1 - z)
        dq = torch.cat([dr, dz, dn * r], -1)
        sums.add(dq, xhat)
        dinput[rows] = torch.cat([dr, dz, dn], -1).to(dinput.dtype)
        of_a[rows] = groups_backward(dq, xhat, spreads, weight, groups).to(of_a.dtype)
        dh[:n] = (dh_new * z + of_a[rows] @ weight_hh).to(dh.dtype)
    sums.store()
