"""The RNN with layer norm: the slide's form and that of two terms, both nonlinearities."""

from normkernels.cases._recurrent import recurrent_op, row_norm, unrolled
from normkernels.functional import layer_norm_rnn


def layer_norm_rnn_torch(
    input, weight_hh, weight=None, bias=None, h_0=None, batch_sizes=None, nonlinearity="tanh", eps=1e-5,
    norm_terms="sum", reverse=False,
):  # fmt: skip
    """The loop over time."""
    rows = input.shape[1] if batch_sizes is None else int(batch_sizes[0])
    h_0 = input.new_zeros(rows, weight_hh.shape[1]) if h_0 is None else h_0

    def step(_, x, h):
        a = h @ weight_hh.T
        a = a + x if norm_terms == "sum" else a
        z = row_norm(a, weight, bias, eps, (1,))
        z = z if norm_terms == "sum" else z + x
        return (z.tanh() if nonlinearity == "tanh" else z.relu(),)

    return unrolled(input, batch_sizes, reverse, [h_0], step)


OP = recurrent_op("layer_norm_rnn", layer_norm_rnn, layer_norm_rnn_torch)
