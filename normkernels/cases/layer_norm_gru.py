"""The GRU with layer norm: three ways to group its gates, one or two terms."""

from normkernels.cases._recurrent import recurrent_op, row_norm, unrolled
from normkernels.functional import layer_norm_gru

GROUPS = {"rz": (2, 1), "joint": (3,), "gate": (1, 1, 1)}


def layer_norm_gru_torch(
    input, weight_hh, weight=None, bias=None, h_0=None, batch_sizes=None, eps=1e-5, norm_over="rz",
    norm_terms="separate", reverse=False,
):  # fmt: skip
    """The loop over time."""
    rows = input.shape[1] if batch_sizes is None else int(batch_sizes[0])
    h_0 = input.new_zeros(rows, weight_hh.shape[1]) if h_0 is None else h_0

    def step(_, x, h):
        a = h @ weight_hh.T
        together = norm_terms == "sum"
        r, z, n = row_norm(a + x if together else a, weight, bias, eps, GROUPS[norm_over]).chunk(3, 1)
        x_r, x_z, x_n = (0, 0, 0) if together else x.chunk(3, 1)
        r, z = (r + x_r).sigmoid(), (z + x_z).sigmoid()
        return ((1 - z) * (x_n + r * n).tanh() + z * h,)

    return unrolled(input, batch_sizes, reverse, [h_0], step)


OP = recurrent_op("layer_norm_gru", layer_norm_gru, layer_norm_gru_torch)
