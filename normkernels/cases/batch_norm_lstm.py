"""The LSTM with batch norm: statistics of each step, shared beyond the last slot; three ways with the cell."""

from functools import partial

from normkernels.cases._recurrent import lstm_step, recurrent_op, unrolled
from normkernels.cases.batch_norm_rnn import column_norm
from normkernels.functional import batch_norm_lstm

STATE = ("running_mean", "running_var", "cell_running_mean", "cell_running_var")


def batch_norm_lstm_torch(
    input, weight_hh, running_mean=None, running_var=None, cell_running_mean=None, cell_running_var=None, weight=None,
    bias=None, cell_weight=None, cell_bias=None, h_0=None, c_0=None, batch_sizes=None, training=False, momentum=0.1,
    eps=1e-5, norm_terms="separate", norm_cell="output", reverse=False,
):  # fmt: skip
    """The loop over time."""
    rows = input.shape[1] if batch_sizes is None else int(batch_sizes[0])
    h_0, c_0 = (input.new_zeros(rows, weight_hh.shape[1]) if s is None else s for s in (h_0, c_0))
    settings = training, momentum, eps
    norm = column_norm(running_mean, running_var, weight, bias, *settings)
    of_cell = column_norm(cell_running_mean, cell_running_var, cell_weight, cell_bias, *settings)

    def step(k, x, h, c):
        cell_norm = partial(of_cell, k) if norm_cell else lambda c: c
        forms = norm_terms == "separate", norm_cell == "carried"
        return lstm_step(x, h @ weight_hh.T, c, partial(norm, k), cell_norm, *forms)

    return unrolled(input, batch_sizes, reverse, [h_0, c_0], step)


OP = recurrent_op("batch_norm_lstm", batch_norm_lstm, batch_norm_lstm_torch, STATE)
