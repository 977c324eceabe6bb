"""LayerNorm: torch.nn.LayerNorm on fused kernels."""

import math

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._extras import Extras
from normkernels.modules._leaf import leaf
from normkernels.ops.layer_norm import layer_norm


class LayerNorm(Extras, torch.nn.LayerNorm):
    """Drop-in for :class:`torch.nn.LayerNorm`, with the extras of :func:`normkernels.functional.layer_norm`.

    ``forward(input)`` returns y; ``forward(input, residual)`` returns ``(y, input + residual)``. With ``weight_offset``
    c the weight starts at 1 - c, so that the layer starts with scale 1.

    In ``eval()`` :class:`torch.nn.TransformerEncoderLayer` computes its norms itself if they have one ``eps``. Where
    this layer does more than that, others read NaN for ``eps``, which equals no other, and the layer is called.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device=None,
        dtype=None,
        *,
        activation: str | None = None,
        slope: float = 0.01,
        weight_offset: float = 0.0,
        backend: str | None = None,
    ) -> None:
        self.set_extras(activation=activation, slope=slope, weight_offset=weight_offset, backend=backend)
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.elementwise_affine:
            torch.nn.init.constant_(self.weight, 1.0 - self.weight_offset)

    @property
    def eps(self) -> float:  # type: ignore[override]
        """For others; see above."""
        plain = self.activation is None and self.weight_offset == 0
        return self.__dict__["eps"] if plain else math.nan

    @eps.setter
    def eps(self, eps: float) -> None:
        self.__dict__["eps"] = eps

    def forward(self, input: Tensor, residual: Tensor | None = None):
        if isinstance(input, Proxy):
            return leaf(self, input, residual)
        return layer_norm(
            input,
            self.normalized_shape,
            self.weight,
            self.bias,
            self.__dict__["eps"],
            residual=residual,
            **self.extras,
        )
