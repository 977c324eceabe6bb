"""The RNN with batch norm: statistics of each step, shared beyond the last slot, one or two terms."""

from typing import Any

from torch import Tensor

from normkernels.cases._recurrent import Given, column_norm, recurrent_op
from normkernels.functional import batch_norm_rnn


def batch_norm_rnn_torch(**arguments: Any) -> tuple[Tensor, ...]:
    """The loop over time."""
    given = Given(**arguments)
    norm = column_norm(given.running_mean, given.running_var, given.weight, given.bias, given)

    def step(k, x, a, h):
        return (given.activate(norm(k, a + x) if given.norm_terms == "sum" else norm(k, a) + x),)

    return given.unrolled(step, given.h_0)


OP = recurrent_op("batch_norm_rnn", batch_norm_rnn, batch_norm_rnn_torch, ("running_mean", "running_var"))
