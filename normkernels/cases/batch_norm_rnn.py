"""The RNN with batch norm: statistics of each step, shared beyond the last slot, one or two terms."""

import torch.nn.functional as F

from normkernels.cases._recurrent import recurrent_op, unrolled
from normkernels.functional import batch_norm_rnn


def column_norm(mean, var, weight, bias, training, momentum, eps):
    """norm(k, a): F.batch_norm with the statistics of the k-th step that is taken."""

    def norm(k, a):
        slot = 0 if mean is None else min(k, len(mean) - 1)
        running = (None, None) if mean is None else (mean[slot], var[slot])
        return F.batch_norm(a, *running, weight, bias, training, momentum, eps)

    return norm


def batch_norm_rnn_torch(
    input, weight_hh, running_mean=None, running_var=None, weight=None, bias=None, h_0=None, batch_sizes=None,
    training=False, momentum=0.1, eps=1e-5, nonlinearity="tanh", norm_terms="separate", reverse=False,
):  # fmt: skip
    """The loop over time."""
    rows = input.shape[1] if batch_sizes is None else int(batch_sizes[0])
    h_0 = input.new_zeros(rows, weight_hh.shape[1]) if h_0 is None else h_0
    norm = column_norm(running_mean, running_var, weight, bias, training, momentum, eps)

    def step(k, x, h):
        a = h @ weight_hh.T
        z = norm(k, a + x) if norm_terms == "sum" else norm(k, a) + x
        return (z.tanh() if nonlinearity == "tanh" else z.relu(),)

    return unrolled(input, batch_sizes, reverse, [h_0], step)


OP = recurrent_op("batch_norm_rnn", batch_norm_rnn, batch_norm_rnn_torch, ("running_mean", "running_var"))
