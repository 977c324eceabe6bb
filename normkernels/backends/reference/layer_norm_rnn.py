"""The layer-normalised RNN in plain PyTorch: the formula, and its forward and backward as the ops want them."""

from normkernels.backends.reference._recurrent import (
    ParameterGrad,
    activate,
    activation_backward,
    affine,
    kept,
    norm_backward,
    normalise,
    row_statistics,
    steps,
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


def layer_norm_rnn_fwd(
    input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, separate, nonlinearity, eps, reverse
):
    """input, y: (total, H); h: (B, H); a, mean, rstd: rows of all steps, or of one; mean, rstd: one column."""
    weight, bias = widened(mean, weight, bias)[1:]
    for _, rows, n in steps(len(input), len(h), batch_sizes, reverse):
        own, p = kept(rows, a, len(input)), input[rows].to(mean.dtype)
        sums = h[:n] @ weight_hh.T
        a[own] = sums if separate else sums + p
        mean[own], rstd[own] = row_statistics(a[own].to(mean.dtype), [1], eps)
        z = affine((a[own] - mean[own]) * rstd[own], weight, bias) + (p if separate else 0)
        h[:n] = y[rows] = activate(z, nonlinearity).to(y.dtype)


def layer_norm_rnn_bwd(
    dy, y, a, mean, rstd, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias, nonlinearity, reverse
):
    """dh: (B, H), of the last state and then of the first; da: that of a, None where it is dinput."""
    weight, of_a, sums = widened(mean, weight)[1], dinput if da is None else da, ParameterGrad(dweight, dbias)
    for _, rows, n in steps(len(dy), len(dh), batch_sizes, not reverse):
        xhat = (a[rows] - mean[rows]) * rstd[rows]
        dz = activation_backward(dy[rows].to(mean.dtype) + dh[:n], y[rows].to(mean.dtype), nonlinearity)
        sums.add(dz, xhat)
        dinput[rows] = dz.to(dinput.dtype)
        of_a[rows] = norm_backward(dz, xhat, rstd[rows], weight, -1).to(of_a.dtype)
        dh[:n] = of_a[rows] @ weight_hh
    sums.store()
