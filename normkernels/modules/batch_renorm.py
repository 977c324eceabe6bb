"""BatchRenorm1d, 2d and 3d: batch norm that trains on what it will infer with."""

from typing import Never

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._leaf import leaf
from normkernels.modules._state import Stateful
from normkernels.ops._batch_renorm_recipe import Ramp
from normkernels.ops.batch_renorm import batch_renorm


class _BatchRenorm(Stateful):
    r"""Batch renormalisation: batch norm that trains on what it will infer with, up to bounds on the difference.

    .. math::
        r = \text{clip}(\sigma_B / \sigma,\ 1/r_{max},\ r_{max}), \quad
        d = \text{clip}((\mu_B - \mu) / \sigma,\ -d_{max},\ d_{max}), \quad
        y = \text{activation}\Big(\Big(\frac{x - \mu_B}{\sigma_B} r + d\Big) w + b + \text{skip}\Big)

    The bounds are those of batch norm, 1 and 0, for ``warmup_steps`` training calls; then they grow (:meth:`bounds`).
    ``freeze()`` keeps running statistics, weight and bias as they are.

    Args:
        num_features, affine, device, dtype: as in torch.nn.BatchNorm#d.
        eps: added to the variance (units of x²).
        momentum: weight of a batch in the running statistics, as in torch.
        r_max, d_max: the bounds in the end; at least 1 and at least 0.
        warmup_steps, r_ramp_steps, d_ramp_steps: training calls before the bounds grow, and until each is reached.
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied last.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input and skip ``(N, C, #space)``, for BatchRenorm1d also ``(N, C)``; output the same, in input's memory layout.

    Attributes: ``weight`` (1) and ``bias`` (0), ``(C,)``, or None; the buffers ``running_mean`` (0) and ``running_std``
    (1), ``(C,)``, float32 even in a 16-bit model, and ``num_batches_tracked`` (0).

    Raises:
        ValueError: a number, name, shape or dtype is wrong, or there is one value per channel in training.

    Example:
        >>> layer = nk.BatchRenorm#d(8, warmup_steps=100)
        >>> layer(torch.randn(4, 8, #5)).shape
        torch.Size([4, 8, #5])
        >>> [float(bound) for bound in layer.bounds()]
        [1.0, 0.0]

    Source: Ioffe 2017, arXiv:1702.03275, algorithm 1; dtypes, gradients and determinism:
    :func:`normkernels.functional.batch_renorm`.
    """

    running_mean: Tensor
    running_std: Tensor
    num_batches_tracked: Tensor

    momentum: float
    r_max: float
    d_max: float
    warmup_steps: int
    r_ramp_steps: int
    d_ramp_steps: int

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.01, affine: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, r_max: float = 3.0, d_max: float = 5.0, warmup_steps: int = 5000,
        r_ramp_steps: int = 35000, d_ramp_steps: int = 20000, bias: bool = True, activation: Activation | None = None,
        slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, affine, bias, device, dtype, **extras)
        self.momentum, self.r_max, self.d_max = momentum, r_max, d_max
        self.warmup_steps, self.r_ramp_steps, self.d_ramp_steps = warmup_steps, r_ramp_steps, d_ramp_steps
        self._ramp().check(type(self).__name__)
        self._start((num_features,), device, dtype, running_mean=0.0, running_std=1.0)
        self._start((), device, torch.long, num_batches_tracked=0)
        self.reset_parameters()

    def _ramp(self) -> Ramp:
        return Ramp(self.r_max, self.d_max, self.warmup_steps, self.r_ramp_steps, self.d_ramp_steps)

    def bounds(self) -> list[Tensor]:
        """r_max and d_max of the next training call, scalars on the module's device."""
        return self._ramp().bounds(self.running_std, self.num_batches_tracked)

    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        """y, as the class says; running statistics move in training unless they are frozen."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)
        self._check_input_dim(input)
        return batch_renorm(
            input, self.running_mean, self.running_std, self.weight, self.bias, self._statistics_move(), self.momentum,
            self.eps, r_max=self.r_max, d_max=self.d_max, num_batches_tracked=self.num_batches_tracked,
            warmup_steps=self.warmup_steps, r_ramp_steps=self.r_ramp_steps, d_ramp_steps=self.d_ramp_steps, skip=skip,
            **self.extras,
        )  # fmt: skip

    def _shown(self) -> tuple[str, ...]:
        return "eps", "momentum", "affine", *Ramp._fields


class BatchRenorm1d(_BatchRenorm, space=1):
    pass


class BatchRenorm2d(_BatchRenorm, space=2):
    pass


class BatchRenorm3d(_BatchRenorm, space=3):
    pass
