"""BatchNorm1d, 2d and 3d: torch.nn's batch norms on fused kernels."""

from typing import Never

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._channels import Twin
from normkernels.modules._leaf import leaf
from normkernels.modules._one_call import one_call
from normkernels.modules._ranks import Ranked
from normkernels.ops._state import count
from normkernels.ops.batch_norm import batch_norm


class _BatchNorm(Ranked, Twin, torch.nn.modules.batchnorm._BatchNorm):
    r"""Batch normalisation of each channel over batch and space: torch.nn.BatchNorm#d, and what can be fused with it.

    .. math::
        y = \text{activation}\Big(\frac{x - \mu_c}{\sqrt{\sigma^2_c + \epsilon}} w_c + b_c + \text{skip}\Big)

    ``freeze()`` keeps running statistics, weight and bias as they are.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in torch.nn.BatchNorm#d. momentum
            is the weight of the new batch: Keras, whose 0.99 is the weight of the old, has 0.01 here (and eps 0.001).
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied last.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input and skip ``(N, C, #space)``, for BatchNorm1d also ``(N, C)``; output the same, in input's memory layout.

    Attributes: as in torch.nn.BatchNorm#d, whose state_dict loads.

    Raises:
        ValueError: a number, name, shape or dtype is wrong, or there is one value per channel in training.
        RuntimeError: another reads ``eps`` to put a plain layer in place of one that does more.

    Example:
        >>> layer = nk.BatchNorm#d(8, activation="relu")
        >>> x = torch.randn(4, 8, #5)
        >>> layer(x, skip=x).shape == x.shape
        True

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2; dtypes, gradients and determinism:
    :func:`normkernels.functional.batch_norm`.
    """

    SAID: tuple[str, ...] = ("training", "frozen_statistics", "track_running_stats", "momentum", "eps", "extras")

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Device = None, dtype: torch.dtype | None = None, *,
        bias: bool = True, activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, **extras)

    def tensors_read(self) -> list[str]:
        if self.frozen_statistics or not self.training:
            return [*super().tensors_read(), "running_mean", "running_var"]
        if not self.track_running_stats:
            return super().tensors_read()
        if self.momentum is None:
            raise TypeError("a cumulative average is read from a tensor")
        return [*super().tensors_read(), "running_mean", "running_var", "num_batches_tracked"]

    @one_call
    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        """y, as the class says; running statistics move in training unless they are frozen."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)
        self._check_input_dim(input)
        training = self.training and not self.frozen_statistics
        tracks = training and self.track_running_stats
        momentum = self.momentum if tracks else 0.0  # what is not read needs no guard
        if momentum is None:  # so torch asks for a cumulative average
            seen = self.num_batches_tracked
            momentum = 0.0 if seen is None else 1.0 / (float(seen) + 1.0)
        kept = tracks or not training
        y = batch_norm(
            input, self.running_mean if kept else None, self.running_var if kept else None, self.weight, self.bias,
            training or self.running_mean is None, momentum, self.__dict__["eps"], skip=skip, **self.extras,
        )  # fmt: skip
        if tracks and self.num_batches_tracked is not None:
            count(self.num_batches_tracked)
        return y


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d, space=1):
    pass


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d, space=2):
    pass


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d, space=3):
    pass
