"""Scale and shift of each sample: what adaptive norms (DiT, FiLM) make of a layer's weight and bias."""

from typing import Any

from torch import Tensor

from normkernels import _checks


def check_tables(norm: Any, shape: tuple[int, ...], **given: Tensor | None) -> None:
    """Each has a row for every sample."""
    for name, t in given.items():
        if t is not None and (not isinstance(t, Tensor) or tuple(t.shape) != shape):
            got = tuple(getattr(t, "shape", ())) or type(t).__name__
            _checks.fail(type(norm).__name__, name, f"have shape {shape}", got)


def adapted(
    weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None, shape: tuple[int, ...]
) -> list[Tensor | None]:
    """w (1 + scale) and b (1 + scale) + shift of ``shape``: tables, which cost nothing beside input."""
    if scale is not None:
        weight = 1 + scale if weight is None else weight * (1 + scale)
        bias = None if bias is None else bias * (1 + scale)
    if shift is not None:
        bias = shift if bias is None else bias + shift
    return [None if t is None else t.expand(shape) for t in (weight, bias)]


def adapted_rows(norm: Any, input: Tensor, scale: Tensor | None, shift: Tensor | None) -> tuple[Any, ...]:
    """(weight, bias, extras) of a norm over the last dims."""
    shape = (*input.shape[:1], *norm.normalized_shape)
    check_tables(norm, shape, scale=scale, shift=shift)
    weight, offset = norm.weight, norm.weight_offset
    if weight is None:  # scale as it is: the kernels add the 1, unrounded
        return scale, shift, {**norm.extras, "weight_offset": 1.0}
    weight, bias = adapted(weight + offset if offset else weight, norm.bias, scale, shift, shape)
    return weight, bias, {**norm.extras, "weight_offset": 0.0}
