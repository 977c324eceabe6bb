"""The LSTM with layer norm: joint gates or each, one or two terms, three ways with the cell."""

from normkernels.cases._recurrent import lstm_step, recurrent_op, row_norm, unrolled
from normkernels.functional import layer_norm_lstm


def layer_norm_lstm_torch(
    input, weight_hh, weight=None, bias=None, cell_weight=None, cell_bias=None, h_0=None, c_0=None, batch_sizes=None,
    eps=1e-5, norm_over="joint", norm_terms="separate", norm_cell="output", reverse=False,
):  # fmt: skip
    """The loop over time."""
    rows = input.shape[1] if batch_sizes is None else int(batch_sizes[0])
    h_0, c_0 = (input.new_zeros(rows, weight_hh.shape[1]) if s is None else s for s in (h_0, c_0))
    groups = (4,) if norm_over == "joint" else (1, 1, 1, 1)

    def norm(a):
        return row_norm(a, weight, bias, eps, groups)

    def cell_norm(c):
        return row_norm(c, cell_weight, cell_bias, eps, (1,)) if norm_cell else c

    def step(_, x, h, c):
        return lstm_step(x, h @ weight_hh.T, c, norm, cell_norm, norm_terms == "separate", norm_cell == "carried")

    return unrolled(input, batch_sizes, reverse, [h_0, c_0], step)


OP = recurrent_op("layer_norm_lstm", layer_norm_lstm, layer_norm_lstm_torch)
