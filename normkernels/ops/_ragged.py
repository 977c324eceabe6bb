"""Jagged nested tensors: a row norm of their values, where the rows are whole."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normkernels._checks import fail


def is_ragged(input: Any) -> bool:
    return isinstance(input, Tensor) and input.is_nested and input.layout == torch.jagged


def of_values(
    name: str, function: Callable[..., Any], input: Any, normalized_shape, *parameters, residual: Any = None,
    gate: Any = None, **options,
) -> Any:  # fmt: skip
    """``function`` on the values of a jagged input, and of a residual and a gate that are ragged in the same way."""
    dims = 1 if isinstance(normalized_shape, int) else len(normalized_shape)
    if dims >= input.dim() - input._ragged_idx:
        rule = f"not be ragged in its last {dims} dims"
        fail(name, "input", rule, f"a nested tensor that is ragged in dim {input._ragged_idx}")
    for t in (*parameters, options.get("bias")):
        if isinstance(t, Tensor) and t.dim() > dims:  # the samples of values have not as many rows each
            fail(name, "weight or bias", "have the shape of normalized_shape beside ragged input", tuple(t.shape))
    for argument, t in {"residual": residual, "gate": gate}.items():
        if t is not None and (not is_ragged(t) or t.shape != input.shape):
            fail(name, argument, f"be a nested tensor of input's shape {tuple(input.shape)}", type(t).__name__)

    def ragged(values: Tensor) -> Tensor:
        where = {"lengths": input.lengths(), "jagged_dim": input._ragged_idx}
        return torch.nested.nested_tensor_from_jagged(values, input.offsets(), **where)

    added, opening = (None if t is None else t.values() for t in (residual, gate))
    found = function(input.values(), normalized_shape, *parameters, residual=added, gate=opening, **options)
    return ragged(found) if residual is None else tuple(map(ragged, found))
