"""What every normaliser allocates and hands on: buffers, flat parameters, gradients to be differentiated again."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from normkernels._backends.reference._rows import compute_dtype

statistic_dtype = compute_dtype  # what the reference computes in is what every backend keeps its statistics in


def flat(parameter: Tensor | None) -> Tensor | None:
    """A weight or bias as a contiguous (N,)."""
    if parameter is None or (parameter.dim() == 1 and parameter.is_contiguous()):
        return parameter
    return parameter.reshape(-1).contiguous()


def planes(t: Tensor | None) -> Any:
    """t (N, C, *) as (N, C, S), differentiably."""
    return None if t is None else t.reshape(*t.shape[:2], prod(t.shape[2:]))


def statistic(x: Tensor) -> Tensor:
    """An unfilled statistic over dim 1 of the canonical x."""
    sizes = (x.shape[0],) if x.dim() == 2 else (x.shape[0], x.shape[2])
    return x.new_empty(sizes, dtype=statistic_dtype(x))


def empty(t: Tensor | None, wanted: bool = True) -> Any:
    """An unfilled contiguous buffer of t's shape and dtype, whatever its strides; None if there is no t or no wish."""
    return torch.empty_like(t, memory_format=torch.contiguous_format) if t is not None and wanted else None


def differentiable_backward(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients of ``function(*inputs)`` that can be differentiated again: those of ordinary torch ops."""
    with torch.enable_grad():  # aliases stand in, for an input may be an output of the node that is differentiated
        aliases = [None if t is None else _alias(t) for t in inputs]
        pairs = [(y, dy) for y, dy in zip(function(*aliases), grads, strict=True) if dy is not None]
    outputs, given = zip(*pairs, strict=True)
    present = [t for t in aliases if t is not None]
    again = torch.is_grad_enabled()
    found = iter(torch.autograd.grad(outputs, present, given, create_graph=again, materialize_grads=True))
    return [None if t is None else next(found) for t in inputs]


def _alias(t: Tensor) -> Tensor:
    return t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
