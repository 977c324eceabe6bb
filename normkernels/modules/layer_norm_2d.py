"""LayerNorm2d: layer norm over the channels of each pixel."""

from collections.abc import Sequence
from typing import Never, overload

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._extras import extra
from normkernels.modules._leaf import leaf
from normkernels.modules._one_call import one_call
from normkernels.modules.layer_norm import LayerNorm
from normkernels.ops.layer_norm_2d import check_format, layer_norm_2d


class LayerNorm2d(LayerNorm):
    r"""Layer norm over the channels of each pixel, of images that are contiguous or channels_last.

    .. math::
        s = x + \text{residual}, \quad y = \text{activation}\Big(
        \frac{s - \text{mean}_c(s)}{\sqrt{\text{var}_c(s) + \epsilon}} (w_c + \text{weight\_offset}) + b_c\Big)

    The layer norm of a CNN in texts that sum over (C, H, W) is another one: ``LayerNorm((C, H, W))``, or, with a weight
    of each channel, ``GroupNorm(1, C)``.

    Args:
        normalized_shape: C.
        memory_format: the layout of the output: input's, or ``torch.contiguous_format`` or ``torch.channels_last``
            where the layer is to take the place of one that permutes.
        eps, elementwise_affine, bias, device, dtype, activation, slope, weight_offset, backend: as in
            :class:`LayerNorm`.

    Shape:
        input and residual ``(N, C, H, W)``; output the same, and with a residual the pair (y, s).

    Attributes: ``weight`` (1 - weight_offset) and ``bias`` (0), ``(C,)``, or None.

    Raises:
        ValueError: a name, shape, dtype or format is wrong.

    Example:
        >>> layer = nk.LayerNorm2d(8, eps=1e-6)
        >>> layer(torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 8, 5, 5])

    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 3 and 4, with the C channels of one pixel as the units;
    dtypes, gradients and determinism:
    :func:`normkernels.functional.layer_norm_2d`.
    """

    SAID: tuple[str, ...] = ("eps", "extras")
    memory_format: torch.memory_format = extra("memory_format")

    @constructor
    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Device = None, dtype: torch.dtype | None = None, *,
        memory_format: torch.memory_format = torch.preserve_format, activation: Activation | None = None,
        slope: float = 0.01, weight_offset: float = 0.0, backend: str | None = None,
    ) -> None:  # fmt: skip
        check_format(type(self).__name__, memory_format)
        extras = {"activation": activation, "slope": slope, "weight_offset": weight_offset, "backend": backend}
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype, **extras)
        self.memory_format = memory_format

    @overload
    def forward(self, input: Tensor, residual: None = None) -> Tensor: ...
    @overload
    def forward(self, input: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]: ...
    @one_call
    def forward(
        self, input: Tensor, residual: Tensor | None = None, **unknown: Never
    ) -> Tensor | tuple[Tensor, Tensor]:
        """y; with a residual (y, input + residual)."""
        if isinstance(input, Proxy):
            return leaf(self, input, residual)
        if unknown:
            refuse(self, unknown)
        return layer_norm_2d(input, self.weight, self.bias, self.__dict__["eps"], residual=residual, **self.extras)
