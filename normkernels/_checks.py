"""Argument checks: ``<function>: <argument> must <rule>, got <value>``, before anything is written."""

import functools
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, strided

from normkernels._activations import ACTIVATIONS, Activation
from normkernels._messages import meant, shown

PLAIN = (torch.Tensor, torch.nn.Parameter)  # what torch makes itself; a subclass may see ops its own way
LAYERS_OWN = ("weight", "bias")  # which a layer gives to its function, and nobody sees
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class ArgumentError(ValueError, RuntimeError):
    """A wrong argument: torch raises ValueError for some of them, RuntimeError for others."""


def fail(op: str, argument: str, rule: str, got: object, hint: str = "") -> NoReturn:
    raise ArgumentError(f"{op}: {argument} must {rule}, got {got}" + (f" ({hint})" if hint else ""))


def check_input(op: str, input: Tensor) -> None:
    """``input`` must be a dense floating tensor."""
    if not isinstance(input, Tensor):
        fail(op, "input", "be a torch.Tensor", type(input).__name__)
    if input.is_nested:
        fail(op, "input", "be a dense tensor", "a nested tensor")
    if input.layout != strided:
        fail(op, "input", "be a dense tensor", input.layout)
    if input.dtype not in DTYPES:
        fail(op, "input", "be float64, float32, bfloat16 or float16", input.dtype)


def check_like_input(op: str, argument: str, tensor: Tensor | None, input: Tensor) -> None:
    """``tensor`` (a residual) must have the shape and device of ``input``, and one of its dtypes."""
    if tensor is None:
        return
    check_dense(op, argument, tensor)
    if tensor.shape != input.shape:
        fail(op, argument, f"have input's shape {tuple(input.shape)}", tuple(tensor.shape))
    if tensor.dtype not in DTYPES:
        fail(op, argument, "be float64, float32, bfloat16 or float16", tensor.dtype)
    check_device(op, argument, tensor, input)


def check_gate(op: str, gate: Tensor | None, input: Tensor) -> None:
    """Shape, dtype and device are those of input."""
    check_like_input(op, "gate", gate, input)
    if gate is not None and gate.dtype != input.dtype:
        fail(op, "gate", f"have input's dtype {input.dtype}", gate.dtype)


@functools.cache
def _policy(op: str, device: str) -> bool:
    if not (hasattr(torch.ops.aten, op) and torch.amp.is_autocast_available(device)):
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{op}", f"Autocast{device.upper()}")


def _float32_under_autocast(op: str, device: str) -> bool:
    return _policy(op, device)


_float32_under_autocast._dynamo_marked_constant = True  # torch.compile looks past a cache, and cannot trace the query


def prepared(aten: str, input: Tensor, added: Tensor | None, *parameters: Tensor | None) -> tuple[Any, ...]:
    """The tensors of a call as torch would see them: under autocast by its policy for ``aten``, and in one dtype.

    A sum is in the wider dtype of input and what is added; parameters that are narrower than the sum go with it.
    """
    device = input.device.type
    dtype = input.dtype if added is None else torch.promote_types(input.dtype, added.dtype)
    if dtype.itemsize == 2 and _float32_under_autocast(aten, device) and torch.is_autocast_enabled(device):
        dtype = torch.float32
    if dtype == input.dtype and (added is None or added.dtype == dtype):
        return input, added, *parameters
    given = (p.to(dtype) if isinstance(p, Tensor) and _narrower(p.dtype, dtype) else p for p in parameters)
    return input.to(dtype), None if added is None else added.to(dtype), *given


def _narrower(one: torch.dtype, other: torch.dtype) -> bool:
    return one.is_floating_point and one.itemsize < other.itemsize


def check_parameter(
    op: str, argument: str, tensor: Tensor | None, shape: tuple[int, ...], input: Tensor, like: str = "input"
) -> None:
    """``tensor`` (a weight or bias) must have ``shape``, input's device, and its dtype (or float32 beside 16 bits)."""
    if tensor is None:
        return
    if isinstance(tensor, Tensor) and not tensor.is_nested and tensor.shape == shape and tensor.dtype == input.dtype:
        if tensor.device == input.device and tensor.layout == strided:  # nearly every call ends here
            return
    check_dense(op, argument, tensor)
    if tuple(tensor.shape) != shape:
        fail(op, argument, f"have shape {shape}", tuple(tensor.shape))
    if tensor.dtype != input.dtype and not (tensor.dtype == torch.float32 and input.dtype.itemsize == 2):
        rule = f"have {like}'s dtype {input.dtype}" + (" or float32" if input.dtype.itemsize == 2 else "")
        hint = f"cast one: input.to({tensor.dtype}), or a layer.to({input.dtype})"
        fail(op, argument, rule, tensor.dtype, hint if argument in LAYERS_OWN else "")
    check_device(op, argument, tensor, input, like)


def check_per_channel(op: str, input: Tensor, **parameters: Tensor | None) -> None:
    """Each must have a value for every channel, dim 1. Where all have as many as each other, input is what is wrong."""
    try:
        for argument, tensor in parameters.items():
            check_parameter(op, argument, tensor, (input.shape[1],), input)
    except ArgumentError:
        given = {k: len(t) for k, t in parameters.items() if isinstance(t, Tensor) and t.dim() == 1}
        sizes = {*given.values()}
        if len(sizes) != 1 or input.shape[1] in sizes:
            raise
        (argument, size), *_ = given.items()
        hint = "channels lie last: input.movedim(-1, 1)" if input.shape[-1] == size else ""
        rule = f"have {size} channels in dim 1, as {argument} has values"
        fail(op, "input", rule, f"shape {tuple(input.shape)}", hint)


def check_dense(op: str, argument: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        fail(op, argument, "be a torch.Tensor or None", type(tensor).__name__)
    if tensor.is_nested or tensor.layout != strided:
        fail(op, argument, "be a dense tensor", "a nested tensor" if tensor.is_nested else tensor.layout)


def check_device(op: str, argument: str, tensor: Tensor, input: Tensor, like: str = "input") -> None:
    if tensor.device != input.device:
        hint = f"move one: input.to({str(tensor.device)!r}), or a layer.to({str(input.device)!r})"
        rule = f"be on {like}'s device {input.device}"
        fail(op, argument, rule, tensor.device, hint if argument in LAYERS_OWN else "")


def check_normalized_shape(op: str, input: Tensor, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """``normalized_shape`` as a tuple; input must end in it."""
    if isinstance(normalized_shape, int):
        normalized_shape = (normalized_shape,)
    if not isinstance(normalized_shape, Sequence):
        hint = "weight comes after it" if isinstance(normalized_shape, Tensor) else ""
        fail(op, "normalized_shape", "be an int or a sequence of ints", shown(normalized_shape), hint)
    shape = tuple(normalized_shape)
    if not shape:
        fail(op, "normalized_shape", "have at least one dimension", shape)
    if input.shape[-len(shape) :] != shape:
        fail(op, "input", f"end in normalized_shape {shape}", f"shape {tuple(input.shape)}")
    return shape


def check_eps(op: str, eps: float, argument: str = "eps") -> None:
    """A number that is not negative, for the root of such a sum may be NaN."""
    try:
        if eps >= 0:
            return
    except TypeError:
        fail(op, argument, "be a number", shown(eps))
    fail(op, argument, "be positive or 0", shown(eps))


def check_activation(op: str, activation: Activation | None) -> Activation:
    """The name of the activation; None means ``"identity"``."""
    if activation is None:
        return "identity"
    if activation not in ACTIVATIONS:
        rule = f"be None or one of {', '.join(ACTIVATIONS)}"
        fail(op, "activation", rule, shown(activation), meant(activation, ACTIVATIONS))
    return activation
