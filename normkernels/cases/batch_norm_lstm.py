"""The LSTM with batch norm: statistics of each step, shared beyond the last slot; three ways with the cell."""

from typing import Any

from torch import Tensor

from normkernels.cases._recurrent import Given, column_norm, recurrent_op
from normkernels.functional import batch_norm_lstm

STATE = ("running_mean", "running_var", "cell_running_mean", "cell_running_var")


def batch_norm_lstm_torch(**arguments: Any) -> tuple[Tensor, ...]:
    """The loop over time."""
    given = Given(**arguments)
    norm = column_norm(given.running_mean, given.running_var, given.weight, given.bias, given)
    of_cell = given.cell_running_mean, given.cell_running_var, given.cell_weight, given.cell_bias
    return given.lstm(norm, column_norm(*of_cell, given))


OP = recurrent_op("batch_norm_lstm", batch_norm_lstm, batch_norm_lstm_torch, STATE)
