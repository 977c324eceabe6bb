"""LayerNorm: torch.nn.LayerNorm on fused kernels."""

import math
from collections.abc import Sequence
from typing import Never, overload

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._adapted import adapted_rows
from normkernels.modules._leaf import leaf
from normkernels.modules._one_call import one_call
from normkernels.modules._rows import RowExtras, normalized
from normkernels.ops.layer_norm import layer_norm


class LayerNorm(RowExtras, torch.nn.LayerNorm):
    r"""Normalisation over the last dims: torch.nn.LayerNorm, and what can be fused with it.

    .. math::
        s = x + \text{residual}, \quad y = \text{activation}\Big(\Big(
        \frac{s - \text{mean}(s)}{\sqrt{\text{var}(s) + \epsilon}} (w + \text{weight\_offset}) + b\Big)
        (1 + \text{scale}_n) + \text{shift}_n\Big)

    scale and shift, one for each sample, are given to the call or left out: adaptive layer norm (DiT), FiLM. With a
    gate, given to the call too, y is u activation(gate), where u is what the activation has above (FLA).

    In ``eval()`` torch.nn.TransformerEncoderLayer computes its norms itself if they have one ``eps``. Where this layer
    does more than that, others read NaN for ``eps``, which equals no other, and the layer is called.

    Args:
        normalized_shape, eps, elementwise_affine, bias, device, dtype: as in torch.nn.LayerNorm.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied last; of the gate where one is given.
        slope: of ``"leaky_relu"`` for negative values.
        weight_offset: added to the weight, which starts at 1 less that.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input, residual and gate ``(*, *normalized_shape)``; scale and shift ``(B, *normalized_shape)``, of which B is
        input's dim 0; output as input, and with a residual the pair (y, s).

    Attributes: ``weight`` (1 - weight_offset) and ``bias`` (0), ``normalized_shape``, or None.

    Raises:
        ValueError: a name, shape or dtype is wrong.

    Example:
        >>> layer, x = nk.LayerNorm(16), torch.randn(4, 16)
        >>> y, s = layer(torch.randn(4, 16), residual=x)
        >>> layer(x).shape == y.shape == s.shape
        True

    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 3 and 4; dtypes, gradients and determinism:
    :func:`normkernels.functional.layer_norm`.
    """

    SAID: tuple[str, ...] = ("eps", "normalized_shape", "extras")

    @constructor
    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Device = None, dtype: torch.dtype | None = None, *,
        activation: Activation | None = None,
        slope: float = 0.01, weight_offset: float = 0.0, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "weight_offset": weight_offset, "backend": backend}
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype, **extras)

    @property
    def eps(self) -> float:  # type: ignore[override]
        """Added to the variance; others read NaN where the layer does more than its twin, as the class says."""
        plain = self.activation is None and self.weight_offset == 0
        return self.__dict__["eps"] if plain else math.nan

    @eps.setter
    def eps(self, eps: float) -> None:
        self.__dict__["eps"] = eps

    @overload
    def forward(
        self, input: Tensor, residual: None = None, scale: Tensor | None = None, shift: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def forward(
        self, input: Tensor, residual: Tensor, scale: Tensor | None = None, shift: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip
    @one_call
    def forward(
        self, input: Tensor, residual: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None,
        gate: Tensor | None = None, **unknown: Never,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """y; with a residual (y, input + residual)."""
        if isinstance(input, Proxy):
            return leaf(self, input, residual, *(() if scale is shift is gate is None else (scale, shift, gate)))
        if unknown:
            refuse(self, unknown)
        eps, extras = self.__dict__["eps"], self.extras
        weight, bias = self.weight, self.bias
        shape = normalized(self, weight) if torch.compiler.is_dynamo_compiling() else self.normalized_shape
        if scale is not None or shift is not None:
            weight, bias, extras = adapted_rows(self, input, scale, shift)
        return layer_norm(input, shape, weight, bias, eps, residual=residual, gate=gate, **extras)
