"""RMSNorm: torch.nn.RMSNorm on fused kernels."""

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._extras import Extras
from normkernels.modules._leaf import leaf
from normkernels.ops.rms_norm import rms_norm


class RMSNorm(Extras, torch.nn.RMSNorm):
    """Drop-in for :class:`torch.nn.RMSNorm`, with the extras of :func:`normkernels.functional.rms_norm`.

    ``forward(input)`` returns y; ``forward(input, residual)`` returns ``(y, input + residual)``. With ``weight_offset``
    c (1.0: Gemma's form) the weight starts at 1 - c, so that the layer starts with scale 1.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device=None,
        dtype=None,
        *,
        activation: str | None = None,
        slope: float = 0.01,
        weight_offset: float = 0.0,
        backend: str | None = None,
    ) -> None:
        self.set_extras(activation=activation, slope=slope, weight_offset=weight_offset, backend=backend)
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.elementwise_affine:
            torch.nn.init.constant_(self.weight, 1.0 - self.weight_offset)

    def forward(self, input: Tensor, residual: Tensor | None = None):
        if isinstance(input, Proxy):
            return leaf(self, input, residual)
        return rms_norm(input, self.normalized_shape, self.weight, self.eps, residual=residual, **self.extras)
