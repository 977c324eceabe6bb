"""GroupNorm: torch.nn.GroupNorm on fused kernels."""

from typing import TYPE_CHECKING, Never

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._adapted import adapted, check_tables
from normkernels.modules._channels import ChannelExtras
from normkernels.modules._leaf import leaf
from normkernels.modules._one_call import one_call
from normkernels.ops.group_norm import group_norm


class GroupNorm(ChannelExtras, torch.nn.GroupNorm):
    r"""Normalisation of groups of channels of each image: torch.nn.GroupNorm, and what can be fused with it.

    .. math::
        y = \text{activation}\Big(\Big(\frac{x - \mu_{ng}}{\sqrt{\sigma^2_{ng} + \epsilon}} w_c + b_c\Big)
        (1 + \text{scale}_{nc}) + \text{shift}_{nc} + \text{skip}\Big)

    scale and shift, one for each image and channel, are given to the call or left out: adaptive group norm. With a
    gate, given to the call too, y is u activation(gate), where u is what the activation has above without a skip.

    Args:
        num_groups, num_channels, eps, affine, device, dtype: as in torch.nn.GroupNorm.
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS`` (diffusion: ``"silu"``), applied last; of the gate
            where one is given.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input, skip and gate ``(N, C, *)``, scale and shift ``(N, C)``; output as input, in its memory layout.

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

    SAID: tuple[str, ...] = ("num_groups", "num_channels", "eps", "extras")

    @constructor
    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, bias: bool = True, activation: Activation | None = None,
        slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_groups, num_channels, eps, affine, device, dtype, bias=bias, **extras)

    @one_call
    def forward(
        self, input: Tensor, skip: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None,
        gate: Tensor | None = None, **unknown: Never,
    ) -> Tensor:  # fmt: skip
        """y, as the class says."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip, *(() if scale is shift is gate is None else (scale, shift, gate)))
        if unknown:
            refuse(self, unknown)
        weight, bias = self.weight, self.bias
        if scale is not None or shift is not None:
            shape = (*input.shape[:1], self.num_channels)
            check_tables(self, shape, scale=scale, shift=shift)
            weight, bias = adapted(weight, bias, scale, shift, shape)
        return group_norm(input, self.num_groups, weight, bias, self.eps, skip=skip, gate=gate, **self.extras)

    if TYPE_CHECKING:  # torch.nn.Module's says nothing of what it takes and returns

        def __call__(
            self, input: Tensor, skip: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None,
            gate: Tensor | None = None,
        ) -> Tensor: ...  # fmt: skip
