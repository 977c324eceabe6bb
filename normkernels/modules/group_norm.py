"""GroupNorm: torch.nn.GroupNorm on fused kernels."""

from typing import Never

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._channels import ChannelExtras
from normkernels.modules._leaf import leaf
from normkernels.ops.group_norm import group_norm


class GroupNorm(ChannelExtras, torch.nn.GroupNorm):
    r"""Normalisation of groups of channels of each image: torch.nn.GroupNorm, and what can be fused with it.

    .. math::
        y = \text{activation}\Big(\frac{x - \mu_{ng}}{\sqrt{\sigma^2_{ng} + \epsilon}} w_c + b_c + \text{skip}\Big)

    Args:
        num_groups, num_channels, eps, affine, device, dtype: as in torch.nn.GroupNorm.
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS`` (diffusion: ``"silu"``), applied last.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input and skip ``(N, C, *)``; output the same, in input's memory layout.

    Attributes: ``weight`` (1) and ``bias`` (0), ``(C,)``, or None.

    Raises:
        ValueError: C is not a multiple of num_groups, or a name, shape or dtype is wrong.

    Example:
        >>> layer = nk.GroupNorm(4, 8, activation="silu")
        >>> layer(torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 8, 5, 5])

    Source: Wu & He 2018, arXiv:1803.08494, eq. 1 to 7; dtypes, gradients and determinism:
    :func:`normkernels.functional.group_norm`.
    """

    @constructor
    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, bias: bool = True, activation: Activation | None = None,
        slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_groups, num_channels, eps, affine, device, dtype, bias=bias, **extras)

    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        """y, as the class says."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps, skip=skip, **self.extras)
