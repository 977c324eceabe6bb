"""BatchNorm1d, 2d and 3d: torch.nn's batch norms on fused kernels."""

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._channels import Twin
from normkernels.modules._leaf import leaf
from normkernels.ops._state import count
from normkernels.ops.batch_norm import batch_norm


class _BatchNorm(Twin, torch.nn.modules.batchnorm._BatchNorm):
    """Drop-in for its twin in :mod:`torch.nn`, with the extras of :func:`normkernels.functional.batch_norm`.

    ``forward(input, skip=None)``. ``freeze()`` keeps the running statistics, weight and bias as they are.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
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
        training = self.training and not self.frozen_statistics
        tracks = training and self.track_running_stats
        momentum = self.momentum
        if momentum is None:  # a cumulative average
            seen = self.num_batches_tracked if tracks else None
            momentum = 0.0 if seen is None else 1.0 / (float(seen) + 1.0)
        kept = tracks or not training
        y = batch_norm(
            input, self.running_mean if kept else None, self.running_var if kept else None, self.weight, self.bias,
            training or self.running_mean is None, momentum, self.__dict__["eps"], skip=skip, **self.extras,
        )  # fmt: skip
        if tracks and self.num_batches_tracked is not None:
            count(self.num_batches_tracked)
        return y


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    __doc__ = _BatchNorm.__doc__


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    __doc__ = _BatchNorm.__doc__


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    __doc__ = _BatchNorm.__doc__
