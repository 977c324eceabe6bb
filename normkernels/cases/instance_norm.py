"""Instance norm: with the statistics of each instance, and with running ones for constants."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from normkernels.cases import Sample
from normkernels.cases._channels import OPTIONAL, Norm, last, skip_and_activate
from normkernels.functional import instance_norm


def instance_norm_torch(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1,
    eps: float = 1e-5, **after: Any,
) -> Tensor:  # fmt: skip
    y = F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return skip_and_activate(y, **after)


NORM = Norm("instance_norm", statistics=lambda rank: tuple(range(2, rank)), arguments=lambda channels: {})


def _samples() -> list[Sample]:
    sample, x = NORM.sample, NORM.x
    constants: dict[str, Any] = {"running": True, "use_input_stats": False}
    return [
        *NORM.samples(),
        sample("2x3x257", x(2, 3, 257), OPTIONAL, activation="leaky_relu"),
        sample("1x3x5x6x7", x(1, 3, 5, 6, 7), activation="leaky_relu"),
        sample("3x20x5x7-running", x(3, 20, 5, 7), running=True, momentum=0.3),
        sample("channels_last-running", last(x(3, 20, 5, 7)), running=True),
        sample("3x20x5x7-eval", x(3, 20, 5, 7), OPTIONAL, activation="relu", **constants),
        sample("channels_last-eval", last(x(3, 20, 5, 7)), OPTIONAL, activation="silu", **constants),
        sample("3x20x1-eval", x(3, 20, 1), (), **constants),
        sample("3x20x5x7-gated-silu", x(3, 20, 5, 7), gated=True, activation="silu"),
        sample("channels_last-gated-tanh", last(x(3, 20, 5, 7)), gated=True, activation="tanh"),
        sample("3x20x5x7-eval-gated", x(3, 20, 5, 7), gated=True, **constants),
    ]


OP = NORM.op(instance_norm, instance_norm_torch, _samples())
