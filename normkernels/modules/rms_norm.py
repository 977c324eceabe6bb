"""RMSNorm: torch.nn.RMSNorm on fused kernels."""

from collections.abc import Sequence
from typing import Never, overload

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._adapted import adapted_rows
from normkernels.modules._extras import say_again
from normkernels.modules._leaf import leaf
from normkernels.modules._one_call import one_call
from normkernels.modules._rows import RowExtras, normalized
from normkernels.ops.rms_norm import rms_norm


class RMSNorm(RowExtras, torch.nn.RMSNorm):
    r"""Division by the root mean square over the last dims: torch.nn.RMSNorm, and what can be fused with it.

    .. math::
        s = x + \text{residual}, \quad
        y = \text{activation}\Big(\Big(
        \frac{s}{\sqrt{\text{mean}(s^2) + \epsilon}} (w + \text{weight\_offset}) + b\Big)
        (1 + \text{scale}_n) + \text{shift}_n\Big)

    scale and shift, one for each sample, are given to the call or left out. With a gate, given to the call too, y is
    u activation(gate), where u is what the activation has above (FLA, Mamba-2).

    Args:
        normalized_shape, eps, elementwise_affine, device, dtype: as in torch.nn.RMSNorm.
        bias: with, there is a bias too; torch.nn.RMSNorm has none.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied last; of the gate where one is given.
        slope: of ``"leaky_relu"`` for negative values.
        weight_offset: added to the weight, which starts at 1 less that; 1.0 is Gemma's form.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input, residual and gate ``(*, *normalized_shape)``; scale and shift ``(B, *normalized_shape)``, of which B is
        input's dim 0; output as input, and with a residual the pair (y, s).

    Attributes: ``weight`` (1 - weight_offset) and ``bias`` (0), ``normalized_shape``, or None.

    Raises:
        ValueError: a name, shape or dtype is wrong.

    Example:
        >>> layer, x = nk.RMSNorm(16), torch.randn(4, 16)
        >>> y, s = layer(torch.randn(4, 16), residual=x)
        >>> layer(x).shape == y.shape == s.shape
        True

    Source: Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4; dtypes, gradients and determinism:
    :func:`normkernels.functional.rms_norm`.
    """

    SAID: tuple[str, ...] = ("eps", "normalized_shape", "extras")

    @constructor
    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None,
        elementwise_affine: bool = True, device: Device = None, dtype: torch.dtype | None = None, *,
        bias: bool = False, activation: Activation | None = None, slope: float = 0.01, weight_offset: float = 0.0,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "weight_offset": weight_offset, "backend": backend}
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype, **extras)
        wanted = bias and elementwise_affine
        new = torch.zeros(self.normalized_shape, device=device, dtype=dtype) if wanted else None
        self.register_parameter("bias", None if new is None else torch.nn.Parameter(new))

    def register_parameter(self, name: str, param: torch.nn.Parameter | None) -> None:
        super().register_parameter(name, param)
        if name == "bias":
            say_again(self)  # whether there is one

    def tensors_read(self) -> list[str]:
        return ["weight", "bias"] if self._parameters.get("bias") is not None else ["weight"]

    def extra_repr(self) -> str:
        return super().extra_repr() + (", bias=True" if self.bias is not None else "")

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
        weight, bias, extras = self.weight, self.bias, self.extras
        shape = normalized(self, weight) if torch.compiler.is_dynamo_compiling() else self.normalized_shape
        if scale is not None or shift is not None:
            weight, bias, extras = adapted_rows(self, input, scale, shift)
        return rms_norm(input, shape, weight, self.eps, bias=bias, residual=residual, gate=gate, **extras)
