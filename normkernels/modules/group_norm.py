"""GroupNorm: torch.nn.GroupNorm on fused kernels."""

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._channels import ChannelExtras
from normkernels.modules._leaf import leaf
from normkernels.ops.group_norm import group_norm


class GroupNorm(ChannelExtras, torch.nn.GroupNorm):
    """Drop-in for :class:`torch.nn.GroupNorm`, with the extras of :func:`normkernels.functional.group_norm`.

    ``forward(input, skip=None)``.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
        activation: str | None = None,
        slope: float = 0.01,
        backend: str | None = None,
    ) -> None:
        self.set_extras(activation=activation, slope=slope, backend=backend)
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        self.drop_bias(not bias)

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps, skip=skip, **self.extras)
