"""InstanceNorm1d, 2d and 3d: torch.nn's instance norms on fused kernels."""

import warnings

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._channels import Twin
from normkernels.modules._leaf import leaf
from normkernels.ops.instance_norm import instance_norm


class _InstanceNorm(Twin, torch.nn.modules.instancenorm._InstanceNorm):
    """Drop-in for its twin in :mod:`torch.nn`, with the extras of :func:`normkernels.functional.instance_norm`.

    ``forward(input, skip=None)``; input may come without its batch dim. ``freeze()`` keeps the running statistics,
    weight and bias as they are.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
        activation: str | None = None,
        slope: float = 0.01,
        backend: str | None = None,
    ) -> None:
        self.set_extras(activation=activation, slope=slope, backend=backend)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.drop_bias(not bias)

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        self._check_input_dim(input)
        channels = input.shape[input.dim() - self._get_no_batch_dim()]
        if channels != self.num_features and not self.affine and not self.track_running_stats:
            warnings.warn(f"input has {channels} channels, not num_features={self.num_features}", stacklevel=2)
        if input.dim() == self._get_no_batch_dim():
            return self.forward(input.unsqueeze(0), None if skip is None else skip.unsqueeze(0)).squeeze(0)
        use_input_stats = not self.track_running_stats or (self.training and not self.frozen_statistics)
        return instance_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, use_input_stats,
            self.momentum if self.momentum is not None else 0.0, self.__dict__["eps"], skip=skip, **self.extras,
        )  # fmt: skip


class InstanceNorm1d(_InstanceNorm, torch.nn.InstanceNorm1d):
    __doc__ = _InstanceNorm.__doc__


class InstanceNorm2d(_InstanceNorm, torch.nn.InstanceNorm2d):
    __doc__ = _InstanceNorm.__doc__


class InstanceNorm3d(_InstanceNorm, torch.nn.InstanceNorm3d):
    __doc__ = _InstanceNorm.__doc__
