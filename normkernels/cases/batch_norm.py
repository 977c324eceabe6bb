"""Batch norm: in training, and with running statistics for constants."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from normkernels.cases import Sample
from normkernels.cases._channels import OPTIONAL, Norm, last, skip_and_activate
from normkernels.functional import batch_norm


def batch_norm_torch(
    input: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, **after: Any,
) -> Tensor:  # fmt: skip
    y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return skip_and_activate(y, **after)


NORM = Norm(
    "batch_norm",
    statistics=lambda rank: (0, *range(2, rank)),
    arguments=lambda channels: {"running_mean": None, "running_var": None, "training": True},
)


def _samples() -> list[Sample]:
    sample, x = NORM.sample, NORM.x
    constants: dict[str, Any] = {"running": True, "training": False}
    return [
        *NORM.samples(),
        sample("37x33", x(37, 33), OPTIONAL, activation="relu"),
        sample("250x3", x(250, 3)),
        sample("7x33x1x1", x(7, 33, 1, 1)),
        sample("3x20x5x7-running", x(3, 20, 5, 7), running=True, momentum=0.3),
        sample("channels_last-running", last(x(3, 20, 5, 7)), running=True),
        sample("3x20x5x7-eval", x(3, 20, 5, 7), OPTIONAL, activation="relu", **constants),
        sample("channels_last-eval", last(x(3, 20, 5, 7)), OPTIONAL, activation="silu", **constants),
        sample("plain-eval", x(3, 20, 5, 7), (), **constants),
        sample("5x33-eval", x(5, 33), **constants),
        sample("1x33-eval", x(1, 33), ("skip", "bias"), **constants),
    ]


OP = NORM.op(batch_norm, batch_norm_torch, _samples())
