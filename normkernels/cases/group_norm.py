"""Group norm: from one channel in each group to all of them in one."""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels.cases import Sample, seeded
from normkernels.cases._channels import OPTIONAL, Norm, last, skip_and_activate
from normkernels.functional import group_norm


def group_norm_torch(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    **after: Any,
) -> Tensor:  # fmt: skip
    if any(t is not None and t.dim() == 2 for t in (weight, bias)):
        u = F.group_norm(input, num_groups, None, None, eps)
        weight, bias = (None if t is None else t.view(*t.shape, *[1] * (input.dim() - 2)) for t in (weight, bias))
        u = u if weight is None else u * weight
        return skip_and_activate(u if bias is None else u + bias, **after)
    if weight is None and bias is not None:  # torch's backward then fails: "tensor does not have a device"
        weight = torch.ones_like(bias)
    return skip_and_activate(F.group_norm(input, num_groups, weight, bias, eps), **after)


NORM = Norm(
    "group_norm",
    statistics=lambda rank: tuple(range(1, rank)),
    arguments=lambda channels: {"num_groups": next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0)},
)


def _samples() -> list[Sample]:
    sample, x = NORM.sample, NORM.x
    groups = [(12, 12), (12, 3), (20, 4), (12, 1), (33, 3), (320, 32)]  # 1, 4, 5, C, 11 and 10 channels in each
    gated: dict[str, Any] = {"num_groups": 4, "gated": True}
    return [
        *NORM.samples(),
        *(sample(f"2x{c}x3x5-{g}-groups", x(2, c, 3, 5, groups=g), num_groups=g) for c, g in groups),
        *(
            sample(f"2x{c}x3x5-{g}-groups-channels_last", last(x(2, c, 3, 5, groups=g)), OPTIONAL, num_groups=g)
            for c, g in (groups[0], groups[2], groups[3])
        ),
        sample("5x36-3-groups", x(5, 36, groups=3), OPTIONAL, num_groups=3, activation="silu"),
        *(
            _of_images(f"3x12x4x5-of-images-{'-'.join(p)}", x(3, 12, 4, 5, groups=4), p)
            for p in (OPTIONAL, ("weight",))
        ),
        _of_images("channels_last-of-images", last(x(3, 12, 4, 5, groups=4)), OPTIONAL),
        _of_images("5x12-of-images", x(5, 12, groups=4), ("bias",)),
        sample("7x32x1x1-4-groups", x(7, 32, 1, 1, groups=4), num_groups=4),
        sample("3x12x5x7-gated-silu", x(3, 12, 5, 7, groups=4), activation="silu", **gated),
        sample("3x12x4x5-gated", x(3, 12, 4, 5, groups=4), (), **gated),
        sample("channels_last-gated-sigmoid", last(x(3, 12, 5, 7, groups=4)), activation="sigmoid", **gated),
        sample("5x36-gated-gelu", x(5, 36, groups=4), activation="gelu", **gated),
        _of_images("of-images-gated", x(3, 12, 4, 5, groups=4), OPTIONAL[1:], gated=True),
        sample("1x4x120x300-gated-silu", x(1, 4, 120, 300, groups=4), activation="silu", big=True, **gated),
        sample("0x12x3x4-gated", x(0, 12, 3, 4, groups=4), activation="silu", **gated),
    ]


def _of_images(id: str, x: torch.Tensor, present: tuple[str, ...], **call: Any) -> Sample:
    """A weight and a bias for each image, 4 groups."""
    found, g = NORM.sample(id, x, present, num_groups=4, activation="silu", **call), seeded(f"group_norm-{id}")
    tables = {k: torch.randn(x.shape[:2], generator=g, dtype=x.dtype) for k in ("weight", "bias") if k in present}
    return dataclasses.replace(found, tensors={**found.tensors, **tables})


OP = NORM.op(group_norm, group_norm_torch, _samples(), state=())
