"""What the families of rows share in Python: canonical views, layouts, the check of a gate."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor

from normkernels._activations import Activation
from normkernels.ops._buffers import empty, flat

MOST_ROW_DIMS = 3  # that kernels walk


class RowOptions(TypedDict, total=False):
    """The keyword-only extras of a norm over rows, for a type checker."""

    activation: Activation | None
    slope: float
    weight_offset: float
    backend: str | None


class GatedOptions(RowOptions, total=False):
    """And that of the norms which take a gate."""

    gate: Tensor | None


class ImageOptions(RowOptions, total=False):
    """And those of layer_norm_2d."""

    memory_format: torch.memory_format


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the normalised dims lie: the ops for them, the view that these take, and buffers that lie so."""

    fwd: Callable[..., None]
    bwd: Callable[..., None]
    view: Callable[[Tensor | None, int], Any]
    read: Callable[[Tensor | None, int], Any]  # the view of what is only read
    like: Callable[[Tensor], Any] = empty
    shaped: Callable[[Tensor, Tensor], Tensor] = lambda t, input: t.view(input.shape)  # undoes the view
    dense: Callable[[Tensor], Tensor] = Tensor.contiguous  # of any strides, as those buffers lie
    gated: bool = False  # whether the ops have an argument for a gate, and for its gradient

    def gates(self, view: Callable[..., Any], t: Tensor | None, n: int) -> tuple[Any, ...]:
        """That argument, if there is one."""
        return (view(t, n),) if self.gated else ()


def rows(t: Tensor | None, n: int) -> Any:
    """``t`` as (M, n): a view where its columns are adjacent (any row stride), else a copy. None stays None."""
    if t is None:
        return None
    if t.dim() != 2 or t.shape[1] != n:
        t = t.reshape(-1, n) if n else t.reshape(0, 0)
    return t if n == 1 or t.stride(1) == 1 else t.contiguous()


def runs(t: Tensor | None, n: int) -> Any:
    """The same of what is only read, or, where its rows lie at two distances or three, (..., n) with so many dims."""
    if t is None or t.dim() < 3 or (not torch.compiler.is_compiling() and t.is_contiguous()):
        return rows(t, n)
    if not n or t.shape[-1] != n or t.stride(-1) != 1:
        return rows(t, n)
    sizes: list[int] = []
    step = 0  # from one to the next of the rows that sizes begins with
    for d in range(t.dim() - 2, -1, -1):
        if sizes and _equal(t.stride(d), step * sizes[0]):
            sizes[0] *= t.shape[d]
        elif not _equal(t.shape[d], 1):
            sizes.insert(0, t.shape[d])
            step = t.stride(d)
    return t.view(*sizes, n) if 2 <= len(sizes) <= MOST_ROW_DIMS else rows(t, n)


def _equal(a: int, b: int) -> bool:
    """Whether that is known: symbolic sizes get no guard that another batch size would not pass."""
    if type(a) is type(b) is int and not torch.compiler.is_compiling():
        return a == b
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # which imports sympy

    return statically_known_true(a == b)


def parameter(t: Tensor | None, n: int) -> Any:
    """A weight or bias as a contiguous (n,), which all rows share, or (B, n): one for the rows of each of B samples."""
    if t is None or t.numel() == n or t.dim() == 1:
        return flat(t)
    return t.reshape(-1, n).contiguous()


def parameter_shape(input: Tensor, shape: tuple[int, ...], *parameters: Any) -> tuple[int, ...]:
    """That of weight and bias: ``shape``, or (B, *shape) where one has it, for the B samples of input's dim 0."""
    if input.dim() == len(shape):
        return shape
    each = (input.shape[0], *shape)
    found = any(isinstance(t, Tensor) and t.dim() == len(each) and t.shape == each for t in parameters)
    return each if found else shape


def strided_rows(t: Tensor | None, n: int) -> Any:
    """``t`` of shape (B, n, *) as a contiguous (B, n, S). None stays None."""
    return None if t is None else t.contiguous().flatten(2)
