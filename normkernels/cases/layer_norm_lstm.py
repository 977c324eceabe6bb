"""The LSTM with layer norm: joint gates or each, one or two terms, three ways with the cell."""

from typing import Any

from torch import Tensor

from normkernels.cases._recurrent import Given, recurrent_op, row_norm
from normkernels.functional import layer_norm_lstm


def layer_norm_lstm_torch(**arguments: Any) -> tuple[Tensor, ...]:
    """The loop over time."""
    given = Given(**arguments)
    groups = (4,) if given.norm_over == "joint" else (1, 1, 1, 1)

    def norm(_, a):
        return row_norm(a, given.weight, given.bias, given.eps, groups)

    def cell_norm(_, c):
        return row_norm(c, given.cell_weight, given.cell_bias, given.eps, (1,))

    return given.lstm(norm, cell_norm)


OP = recurrent_op("layer_norm_lstm", layer_norm_lstm, layer_norm_lstm_torch)
