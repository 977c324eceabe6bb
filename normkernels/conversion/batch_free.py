"""Members of the family that need no batch, in place of a batch norm."""

from typing import Any

import torch
from torch import nn

from normkernels.conversion import propagation
from normkernels.conversion.twins import place
from normkernels.modules.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normkernels.modules.batch_renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from normkernels.modules.group_norm import GroupNorm
from normkernels.modules.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normkernels.modules.online_norm import OnlineNorm1d, OnlineNorm2d, OnlineNorm3d
from normkernels.modules.streaming_norm import StreamingNorm1d, StreamingNorm2d, StreamingNorm3d

BATCH_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)
STATEFUL: dict[str, Any] = {
    "batch_renorm": (BatchRenorm1d, BatchRenorm2d, BatchRenorm3d),
    "online": (OnlineNorm1d, OnlineNorm2d, OnlineNorm3d),
    "streaming": (StreamingNorm1d, StreamingNorm2d, StreamingNorm3d),
}
INSTANCE = (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
MEMBERS = (*STATEFUL, "group", "layer", "instance")
GROUPS = 32  # Wu & He 2018


def member(old: Any, batch_norm: Any, to: str) -> nn.Module | str:
    """What ``old`` becomes, which is or could be ``batch_norm``, a batch norm of ours; or why it stays."""
    rank = next(i for i, kind in enumerate(BATCH_NORMS) if isinstance(batch_norm, kind))
    channels, eps = batch_norm.num_features, vars(batch_norm)["eps"]
    more: dict[str, Any] = place(old) | batch_norm.extras | {"affine": batch_norm.affine}
    if getattr(batch_norm, "frozen_statistics", False):
        return "its statistics are frozen"
    if to == propagation.MEMBER:
        return propagation.ELSEWHERE
    if to in STATEFUL:
        new = STATEFUL[to][rank](channels, eps=eps, **more)
        if old.running_mean is not None:
            _start(new, old.running_mean, old.running_var, eps)
        return new
    if to == "instance":
        return "a value alone is no instance" if rank == 0 else INSTANCE[rank](channels, eps, **more)
    groups = 1 if to == "layer" else max(g for g in range(1, GROUPS + 1) if channels % g == 0)
    return GroupNorm(groups, channels, eps, **more)


@torch.no_grad()
def _start(new: Any, mean: torch.Tensor, var: torch.Tensor, eps: float) -> None:
    """From running statistics; online norm's have their names, and are kept as they are."""
    if isinstance(new, STATEFUL["batch_renorm"]):
        new.running_mean.copy_(mean)
        new.running_std.copy_((var + eps).sqrt())
    elif isinstance(new, STATEFUL["streaming"]):
        new.long_term[:2].copy_(torch.stack([mean, var.sqrt()]))
        new.counts[0, 1] = 1  # as after one update
