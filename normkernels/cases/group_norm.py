"""Group norm: from one channel in each group to all of them in one."""

import torch
import torch.nn.functional as F

from normkernels.cases import Sample
from normkernels.cases._channels import OPTIONAL, Norm, last, skip_and_activate
from normkernels.functional import group_norm


def group_norm_torch(input, num_groups, weight=None, bias=None, eps=1e-5, **after):
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
    return [
        *NORM.samples(),
        *(sample(f"2x{c}x3x5-{g}-groups", x(2, c, 3, 5, groups=g), num_groups=g) for c, g in groups),
        *(
            sample(f"2x{c}x3x5-{g}-groups-channels_last", last(x(2, c, 3, 5, groups=g)), OPTIONAL, num_groups=g)
            for c, g in (groups[0], groups[2], groups[3])
        ),
        sample("5x36-3-groups", x(5, 36, groups=3), OPTIONAL, num_groups=3, activation="silu"),
        sample("7x32x1x1-4-groups", x(7, 32, 1, 1, groups=4), num_groups=4),
    ]


OP = NORM.op(group_norm, group_norm_torch, _samples(), state=())
