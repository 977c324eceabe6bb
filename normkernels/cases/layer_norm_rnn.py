"""The RNN with layer norm: the slide's form and that of two terms, both nonlinearities."""

from typing import Any

from torch import Tensor

from normkernels.cases._recurrent import Given, recurrent_op, row_norm
from normkernels.functional import layer_norm_rnn


def layer_norm_rnn_torch(norm_terms: str = "sum", **arguments: Any) -> tuple[Tensor, ...]:
    """The loop over time."""
    given = Given(norm_terms=norm_terms, **arguments)

    def step(_, x, a, h):
        together = norm_terms == "sum"
        z = row_norm(a + x if together else a, given.weight, given.bias, given.eps, (1,))
        return (given.activate(z if together else z + x),)

    return given.unrolled(step, given.h_0)


OP = recurrent_op("layer_norm_rnn", layer_norm_rnn, layer_norm_rnn_torch)
