"""Activation modules and functions that a norm of ours can take over."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from normkernels import _folding

MODULES: dict[type[nn.Module], str] = {kind: name for name, kind in _folding.MODULES.items()} | {
    nn.LeakyReLU: "leaky_relu"
}
USUAL: dict[str, dict[str, Any]] = {
    "elu": {"alpha": 1.0}, "hardtanh": {"min_val": -1.0, "max_val": 1.0}, "softplus": {"beta": 1.0, "threshold": 20.0},
}  # fmt: skip
FUNCTIONS: dict[Any, str] = {
    F.relu: "relu", torch.relu: "relu", torch.relu_: "relu", F.relu_: "relu", F.relu6: "relu6", F.silu: "silu",
    F.gelu: "gelu", torch.tanh: "tanh", F.tanh: "tanh", torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid",
    F.leaky_relu: "leaky_relu",
}  # fmt: skip
METHODS = {"relu": "relu", "relu_": "relu", "tanh": "tanh", "sigmoid": "sigmoid"}


def of_module(module: nn.Module) -> tuple[str, float] | None:
    """(name, slope) of an activation that nobody listens to; None if it is none of these."""
    kind = MODULES.get(type(module))
    if kind is None or has_hooks(module) or any(getattr(module, k) != v for k, v in USUAL.get(kind, {}).items()):
        return None
    if isinstance(module, nn.GELU):
        return {"none": "gelu", "tanh": "gelu_tanh"}[module.approximate], 0.01
    return kind, getattr(module, "negative_slope", 0.01)


def of_children(module: nn.Module) -> tuple[str | None, float] | None:
    """(name, slope) of what a norm of another library does after it; None if that is not known."""
    children = [c for c in module.children() if type(c) is not nn.Identity]
    if not children:
        return None, 0.01
    return of_module(children[0]) if len(children) == 1 else None


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody listens to this module's calls, who would then hear something else."""
    held = vars(module)  # asked in every call of a fused norm
    return bool(
        held["_forward_hooks"] or held["_forward_pre_hooks"] or held["_backward_hooks"] or held["_backward_pre_hooks"]
        or "forward" in held
    )  # fmt: skip


def of_call(op: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, float] | None:
    """(name, slope) of an activation as torch.fx saw it called, with what it was given beside the tensor."""
    kind = FUNCTIONS.get(target) if op == "call_function" else METHODS.get(target) if op == "call_method" else None
    more = {k: v for k, v in kwargs.items() if k != "inplace"}
    if kind == "leaky_relu":
        slope = args[0] if args else more.get("negative_slope", 0.01)
        return (kind, slope) if isinstance(slope, float) else None
    if kind == "gelu":
        form = more.get("approximate", "none")
        return None if args else ({"none": "gelu", "tanh": "gelu_tanh"}[form], 0.01)
    return None if kind is None or args[1:] or more else (kind, 0.01)
