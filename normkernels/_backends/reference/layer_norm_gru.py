"""The layer-normalised GRU in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels._backends.reference._recurrent import (
    ParameterGrad,
    affine,
    groups_backward,
    normalise_groups,
    of_sum,
    row_statistics,
    spread,
    steps,
    summed,
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


def layer_norm_gru_fwd(a):
    """input, a, gates: (total, 3 H); y: (total, H); mean, rstd: (total, groups); h: (B, H)."""
    mean, rstd, h, hidden = a.mean, a.rstd, a.h, a.h.shape[1]
    weight, bias = widened(mean, a.weight, a.bias)[1:]
    for _, rows, n in steps(len(a.input), len(h), a.batch_sizes, a.reverse):
        own, p = summed(a, rows, n)
        mean[own], rstd[own] = row_statistics(a.a[own].to(mean.dtype), a.groups, a.eps)
        xhat = (a.a[own] - spread(mean[own], a.groups, hidden)) * spread(rstd[own], a.groups, hidden)
        r, z, c = gru_gates(affine(xhat, weight, bias), p if a.separate else torch.zeros_like(p))
        a.gates[own] = torch.cat([r, z, c], -1).to(a.gates.dtype)
        h[:n] = a.y[rows] = (c + z * (h[:n] - c)).to(a.y.dtype)


def layer_norm_gru_bwd(a):
    """previous: (total, H), h before each step; dh: (B, H), of the last state and then of the first."""
    mean, dh, hidden, da = a.mean, a.dh, a.dh.shape[1], of_sum(a)
    weight, bias = widened(mean, a.weight, a.bias)[1:]
    sums = ParameterGrad(a.dweight, a.dbias)
    for _, rows, n in steps(len(a.dy), len(dh), a.batch_sizes, not a.reverse):
        rstd = spread(a.rstd[rows], a.groups, hidden)
        xhat = (a.a[rows] - spread(mean[rows], a.groups, hidden)) * rstd
        q_n = affine(xhat, weight, bias).chunk(3, -1)[2]
        r, z, c = a.gates[rows].to(mean.dtype).chunk(3, -1)
        dh_new = a.dy[rows].to(mean.dtype) + dh[:n]
        dn = dh_new * (1 - z) * (1 - c * c)
        dr, dz = dn * q_n * r * (1 - r), dh_new * (a.previous[rows] - c) * z * (1 - z)
        dq = torch.cat([dr, dz, dn * r], -1)
        sums.add(dq, xhat)
        a.dinput[rows] = torch.cat([dr, dz, dn], -1).to(a.dinput.dtype)
        da[rows] = groups_backward(dq, xhat, rstd, weight, a.groups).to(da.dtype)
        dh[:n] = (dh_new * z + da[rows] @ a.weight_hh).to(dh.dtype)
    sums.store()
