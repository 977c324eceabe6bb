"""Which of ours stands for a norm of torch.nn, and the other way round, as templates: modules that are set like one."""

from typing import Any

import torch
from torch import nn

from normkernels.modules._extras import DEFAULTS, Extras
from normkernels.modules.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normkernels.modules.group_norm import GroupNorm
from normkernels.modules.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normkernels.modules.layer_norm import LayerNorm
from normkernels.modules.rms_norm import RMSNorm

CHANNELS: dict[type, Any] = {
    nn.BatchNorm1d: BatchNorm1d, nn.BatchNorm2d: BatchNorm2d, nn.BatchNorm3d: BatchNorm3d,
    nn.InstanceNorm1d: InstanceNorm1d, nn.InstanceNorm2d: InstanceNorm2d, nn.InstanceNorm3d: InstanceNorm3d,
}  # fmt: skip
TWINS: dict[type, Any] = {**CHANNELS, nn.GroupNorm: GroupNorm, nn.LayerNorm: LayerNorm, nn.RMSNorm: RMSNorm}
PLAIN: dict[Any, type] = {ours: theirs for theirs, ours in TWINS.items()}


def place(module: nn.Module) -> dict[str, Any]:
    """Device and dtype of its tensors."""
    tensors = [t for t in [*module.parameters(False), *module.buffers(False)] if t.is_floating_point()]
    return {"device": tensors[0].device, "dtype": tensors[0].dtype} if tensors else {}


def template(old: Any, kind: type, **extras: Any) -> nn.Module:
    """``kind``, of torch.nn or ours, with the numbers of ``old``, another norm of that family."""
    eps, more = vars(old)["eps"], place(old) | extras
    if isinstance(old, nn.modules.batchnorm._NormBase):
        return kind(old.num_features, eps, old.momentum, old.affine, old.track_running_stats, **more)
    if isinstance(old, nn.GroupNorm):
        return kind(old.num_groups, old.num_channels, eps, old.affine, **more)
    return kind(old.normalized_shape, eps, old.elementwise_affine, **more)


def without_twin(ours: Any, kind: type) -> str | None:
    """Why no layer of torch.nn does what this one does; None if one does."""
    if kind not in PLAIN:
        return "torch.nn has no such norm"
    said = [f"{k}={v!r}" for k, v in ours.extras.items() if k not in ("backend", "slope") and v != DEFAULTS[k]]
    if isinstance(ours, RMSNorm) and getattr(ours, "bias", None) is not None:
        said.append("bias=True")
    if getattr(ours, "frozen_statistics", False):
        said.append("frozen_statistics=True")
    return f"torch.nn's has no {', '.join(said)}" if said else None


def is_ours(module: nn.Module) -> bool:
    """Whether it is a norm of ours; all of them take extras."""
    return isinstance(module, Extras)


def is_norm(module: nn.Module) -> bool:
    """Whether it is a norm by its class, or seems to be one by its name and its own tensors."""
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
        return True
    if type(module).__module__.startswith("normkernels."):
        return is_ours(module)
    inner = any(True for name, c in module.named_children() if name != "parametrizations" for _ in c.parameters())
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and isinstance(weight, torch.Tensor) and not inner
