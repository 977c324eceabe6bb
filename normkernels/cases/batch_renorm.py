"""Batch Renormalization: corrections within and beyond their bounds, and running statistics for constants."""

from typing import Any

import torch
from torch import Tensor

from normkernels.cases import Sample
from normkernels.cases._channels import OPTIONAL, Norm, affine, constants_torch, last, skip_and_activate
from normkernels.functional import batch_renorm


def batch_renorm_torch(
    input: Tensor, running_mean: Tensor, running_std: Tensor, training: bool = False, momentum: float = 0.01,
    eps: float = 1e-5, r_max: float = 3.0, d_max: float = 5.0, weight: Tensor | None = None,
    bias: Tensor | None = None, **after: Any,
) -> Tensor:  # fmt: skip
    """Algorithm 1 of the paper, by autograd."""
    if not training:
        return constants_torch(input, running_mean, running_std, weight, bias, **after)
    wide = torch.promote_types(input.dtype, torch.float32)
    x, before = input.reshape(*input.shape[:2], -1).to(wide), (running_mean.to(wide), running_std.to(wide))
    mean, std = x.mean((0, 2)), torch.sqrt(x.var((0, 2), correction=0) + eps)
    with torch.no_grad():
        r = torch.clamp(std / before[1], 1 / r_max, r_max)
        d = torch.clamp((mean - before[0]) / before[1], -d_max, d_max)
        if x.numel():
            running_mean.copy_(torch.lerp(before[0], mean, momentum))
            running_std.copy_(torch.lerp(before[1], std, momentum))
    y = (x - mean[:, None]) / std[:, None] * r[:, None] + d[:, None]
    return skip_and_activate(affine(y, weight, bias).view(input.shape).to(input.dtype), **after)


def _state(mean: Tensor, var: Tensor, draw) -> dict[str, Tensor]:
    std = torch.sqrt(var + 1e-5)
    return {"running_mean": mean + std * draw(len(mean)), "running_std": std * torch.exp(draw(len(mean)))}


NORM = Norm(
    "batch_renorm",
    statistics=lambda rank: (0, *range(2, rank)),
    arguments=lambda channels: {"training": True, "momentum": 0.1},
    state=_state,
)


def _samples() -> list[Sample]:
    sample, x = NORM.sample, NORM.x
    image = x(3, 20, 5, 7)
    narrow: dict[str, Any] = {"r_max": 1.2, "d_max": 0.3}
    return [
        *NORM.samples(),
        sample("37x33", x(37, 33), OPTIONAL, activation="relu"),
        sample("250x3", x(250, 3), **narrow),
        sample("7x33x1x1", x(7, 33, 1, 1)),
        sample("3x20x5x7-narrow", image, OPTIONAL, activation="gelu", **narrow),
        sample("3x20x5x7-narrow-plain", image, (), **narrow),
        sample("channels_last-narrow", last(image), **narrow),
        sample("3x20x5x7-batch_norm", image, r_max=1.0, d_max=0.0),
        sample("3x20x5x7-unbounded", image, r_max=float("inf"), d_max=float("inf")),
        sample("3x20x5x7-eval", image, OPTIONAL, activation="relu", training=False),
        sample("channels_last-eval", last(image), OPTIONAL, activation="silu", training=False),
        sample("plain-eval", image, (), training=False),
        sample("5x33-eval", x(5, 33), training=False),
        sample("1x33-eval", x(1, 33), ("skip", "bias"), training=False),
    ]


OP = NORM.op(batch_renorm, batch_renorm_torch, _samples(), ("running_mean", "running_std"))
