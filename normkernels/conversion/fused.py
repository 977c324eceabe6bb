"""What a rewritten forward calls: a norm with what comes before or after it, in one kernel where that is the same."""

import functools
from typing import Any

from torch import Tensor, nn

from normkernels import _activations
from normkernels.conversion.activations import has_hooks


def with_skip(norm: Any, x: Tensor, skip: Tensor | None, activation: str | None, slope: float) -> Tensor:
    """activation(norm(x) + skip)"""
    if has_hooks(norm) or (skip is not None and skip.shape != x.shape):
        y = norm(x) if skip is None else norm(x) + skip
        return _activations.activation(activation or "identity", y, slope)
    return _activated(norm, activation, slope)(x, skip)


def with_residual(norm: Any, x: Tensor, residual: Tensor | None, activation: str | None, slope: float) -> Any:
    """activation(norm(x)); with a residual activation(norm(x + residual)), x + residual"""
    if has_hooks(norm) or (residual is not None and residual.shape != x.shape):
        s = x if residual is None else x + residual
        y = _activations.activation(activation or "identity", norm(s), slope)
        return y if residual is None else (y, s)
    return _activated(norm, activation, slope)(x, residual)


def _activated(norm: nn.Module, activation: str | None, slope: float) -> nn.Module:
    """The norm with an activation, sharing all it has; the norm itself, which others may call, stays as it is."""
    if activation is None:
        return norm
    kind = _kind(type(norm), activation, slope)
    found = kind.__new__(kind)
    found.__dict__ = norm.__dict__
    return found


@functools.cache
def _kind(kind: type[nn.Module], activation: str, slope: float) -> type[nn.Module]:
    extras = property(lambda self: {**vars(self)["extras"], "activation": activation, "slope": slope})
    return type(kind.__name__, (kind,), {"extras": extras})
