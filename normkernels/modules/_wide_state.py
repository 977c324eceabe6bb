"""State that keeps its precision: buffers in float32 or wider, whatever the dtype of the model."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor


class WideState(torch.nn.Module):
    """Mixin: every buffer is state, and in 16 bits the small steps of a state would be lost.

    So a default or given dtype of 16 bits, ``half()``, ``bfloat16()``, ``to()`` and a state_dict in 16 bits that is
    assigned all leave it in float32; ``double()`` widens it. A tensor that takes a buffer's place is registered too.
    """

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        super().register_buffer(name, tensor, persistent)
        self._widen(self._buffers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        self._widen(before)
        return self

    def _widen(self, values: dict[str, Tensor | None]) -> None:
        """Buffers in 16 bits become float32, with these values, which may have more digits."""
        for name in self._buffers.keys() - {"weight", "bias"}:  # those of a frozen norm are buffers, and no state
            t, value = self._buffers[name], values[name]
            if t is not None and value is not None and t.is_floating_point() and t.dtype.itemsize < 4:
                self._buffers[name] = value.to(t.device, torch.float32)
