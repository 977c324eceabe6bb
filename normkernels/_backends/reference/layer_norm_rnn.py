"""The layer-normalised RNN in plain PyTorch: the formula, and its forward and backward as the ops want them."""

from normkernels._backends.reference._recurrent import (
    ParameterGrad,
    activate,
    activation_backward,
    affine,
    norm_backward,
    normalise,
    of_sum,
    row_statistics,
    steps,
    summed,
    unroll,
    widened,
)  # fmt: skip


def layer_norm_rnn_ref(
    input, weight_hh, weight, bias, h, batch_sizes, *, separate, nonlinearity="tanh", eps=1e-5, reverse=False
):
    """(y, h): h_t = f[weight / sigma_t (a_t - mu_t) + bias] with a_t = weight_hh h_{t-1} + input_t, the slide's.

    ``separate``: only weight_hh h_{t-1} is normalised, and input_t is added after (Ba et al. 2016, section 3.1).
    """
    input, weight_hh, weight, bias, h = widened(input, weight_hh, weight, bias, h)

    def step(_, p, h):
        a = h @ weight_hh.T
        if separate:
            return (activate(affine(normalise(a, -1, eps), weight, bias) + p, nonlinearity),)
        return (activate(affine(normalise(a + p, -1, eps), weight, bias), nonlinearity),)

    return unroll(input, batch_sizes, (h,), reverse, step)


def layer_norm_rnn_fwd(a):
    """input, y: (total, H); h: (B, H); a, mean, rstd: rows of all steps, or of one; mean, rstd: one column."""
    mean, rstd, h = a.mean, a.rstd, a.h
    weight, bias = widened(mean, a.weight, a.bias)[1:]
    for _, rows, n in steps(len(a.input), len(h), a.batch_sizes, a.reverse):
        own, p = summed(a, rows, n)
        mean[own], rstd[own] = row_statistics(a.a[own].to(mean.dtype), [1], a.eps)
        z = affine((a.a[own] - mean[own]) * rstd[own], weight, bias) + (p if a.separate else 0)
        h[:n] = a.y[rows] = activate(z, a.nonlinearity).to(a.y.dtype)


def layer_norm_rnn_bwd(a):
    """dh: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    mean, rstd, dh = a.mean, a.rstd, a.dh
    weight, da, sums = widened(mean, a.weight)[1], of_sum(a), ParameterGrad(a.dweight, a.dbias)
    for _, rows, n in steps(len(a.dy), len(dh), a.batch_sizes, not a.reverse):
        xhat = (a.a[rows] - mean[rows]) * rstd[rows]
        dz = activation_backward(a.dy[rows].to(mean.dtype) + dh[:n], a.y[rows].to(mean.dtype), a.nonlinearity)
        sums.add(dz, xhat)
        a.dinput[rows] = dz.to(a.dinput.dtype)
        da[rows] = norm_backward(dz, xhat, rstd[rows], weight, -1).to(da.dtype)
        dh[:n] = da[rows] @ a.weight_hh
    sums.store()
