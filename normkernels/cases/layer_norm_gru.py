"""The GRU with layer norm: three ways to group its gates, one or two terms."""

from typing import Any

from torch import Tensor

from normkernels.cases._recurrent import Given, recurrent_op, row_norm
from normkernels.functional import layer_norm_gru

GROUPS: dict[str, tuple[int, ...]] = {"rz": (2, 1), "joint": (3,), "gate": (1, 1, 1)}


def layer_norm_gru_torch(norm_over: str = "rz", **arguments: Any) -> tuple[Tensor, ...]:
    """The loop over time."""
    given = Given(**arguments)

    def step(_, x, a, h):
        together = given.norm_terms == "sum"
        r, z, n = row_norm(a + x if together else a, given.weight, given.bias, given.eps, GROUPS[norm_over]).chunk(3, 1)
        x_r, x_z, x_n = (0, 0, 0) if together else x.chunk(3, 1)
        r, z = (r + x_r).sigmoid(), (z + x_z).sigmoid()
        return ((1 - z) * (x_n + r * n).tanh() + z * h,)

    return given.unrolled(step, given.h_0)


OP = recurrent_op("layer_norm_gru", layer_norm_gru, layer_norm_gru_torch)
