"""What the modules of the row families share: their extras, and a weight that starts the layer with scale 1."""

from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from normkernels.modules._extras import Extras, extra


def normalized(norm: Any, weight: Tensor | None) -> tuple[int, ...]:
    """The dims that it normalises, for a compiler: of a weight, which is guarded as a whole, they need no guard."""
    return norm.normalized_shape if weight is None else weight.shape


class RowExtras(Extras):
    """The extras of a norm over rows: ``weight_offset`` beside those of all; ``residual`` is given to forward."""

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter
    elementwise_affine: bool
    weight_offset: float = extra("weight_offset")

    def reset_parameters(self) -> None:
        """Weight 1, less ``weight_offset``, and bias 0."""
        super().reset_parameters()  # type: ignore[misc]
        if self.elementwise_affine:
            torch.nn.init.constant_(self.weight, 1.0 - self.weight_offset)
            if getattr(self, "bias", None) is not None:
                torch.nn.init.zeros_(self.bias)

    if TYPE_CHECKING:  # torch.nn.Module's says nothing of what it takes and returns

        @overload
        def __call__(
            self,
            input: Tensor,
            residual: None = None,
            scale: Tensor | None = None,
            shift: Tensor | None = None,
            gate: Tensor | None = None,
        ) -> Tensor: ...
        @overload
        def __call__(
            self,
            input: Tensor,
            residual: Tensor,
            scale: Tensor | None = None,
            shift: Tensor | None = None,
            gate: Tensor | None = None,
        ) -> tuple[Tensor, Tensor]: ...
        def __call__(
            self, input: Tensor, residual: Tensor | None = None, scale: Tensor | None = None,
            shift: Tensor | None = None, gate: Tensor | None = None,
        ) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip
