"""InstanceNorm1d, 2d and 3d: torch.nn's instance norms on fused kernels."""

from typing import TYPE_CHECKING, Never

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels._messages import warn
from normkernels.modules._channels import Twin
from normkernels.modules._leaf import leaf
from normkernels.modules._one_call import one_call
from normkernels.modules._ranks import Ranked
from normkernels.ops.instance_norm import instance_norm


class _InstanceNorm(Ranked, Twin, torch.nn.modules.instancenorm._InstanceNorm):
    r"""Normalisation of each channel of each image over space: torch.nn.InstanceNorm#d, and what can be fused with it.

    .. math::
        y = \text{activation}\Big(\frac{x - \mu_{nc}}{\sqrt{\sigma^2_{nc} + \epsilon}} w_c + b_c + \text{skip}\Big)

    With a gate, given to the call instead of a skip, y is u activation(gate), where u is what the activation has above.
    ``freeze()`` keeps running statistics, weight and bias as they are.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in torch.nn.InstanceNorm#d.
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS`` (nnU-Net: ``"leaky_relu"``), applied last; of the gate
            where one is given.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input, skip and gate ``(N, C, #space)`` or ``(C, #space)``; output the same, in input's memory layout.

    Attributes: as in torch.nn.InstanceNorm#d, whose state_dict loads.

    Raises:
        ValueError: a number, name, shape or dtype is wrong, or an instance has one value per channel in training.
        RuntimeError: another reads ``eps`` to put a plain layer in place of one that does more.

    Example:
        >>> layer = nk.InstanceNorm#d(8, affine=True, activation="leaky_relu")
        >>> layer(torch.randn(4, 8, #5)).shape
        torch.Size([4, 8, #5])

    Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022, eq. 3; dtypes, gradients and determinism:
    :func:`normkernels.functional.instance_norm`.
    """

    @staticmethod
    def _dims(space: int) -> tuple[int, ...]:
        return space + 1, space + 2  # an image alone is taken too

    SAID: tuple[str, ...] = (
        "num_features", "affine", "training", "frozen_statistics", "track_running_stats", "momentum", "eps", "extras",
    )  # fmt: skip

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Device = None, dtype: torch.dtype | None = None, *,
        bias: bool = True, activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, **extras)

    def tensors_read(self) -> list[str]:
        kept = ["running_mean", "running_var"] if self.track_running_stats else []
        return [*super().tensors_read(), *kept]

    @one_call
    def forward(
        self, input: Tensor, skip: Tensor | None = None, gate: Tensor | None = None, **unknown: Never
    ) -> Tensor:
        """y, as the class says; running statistics, if there are any, move in training unless they are frozen."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip, *(() if gate is None else (gate,)))
        if unknown:
            refuse(self, unknown)
        self._check_input_dim(input)
        channels = input.shape[input.dim() - self._get_no_batch_dim()]
        if channels != self.num_features and not self.affine and not self.track_running_stats:
            warn(f"input has {channels} channels, not num_features={self.num_features}")
        if input.dim() == self._get_no_batch_dim():
            skip, gate = (None if t is None else t.unsqueeze(0) for t in (skip, gate))
            return self.forward(input.unsqueeze(0), skip, gate).squeeze(0)
        use_input_stats = not self.track_running_stats or (self.training and not self.frozen_statistics)
        return instance_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, use_input_stats,
            self.momentum if self.momentum is not None else 0.0, self.__dict__["eps"], skip=skip, gate=gate,
            **self.extras,
        )  # fmt: skip

    if TYPE_CHECKING:  # torch.nn.Module's says nothing of what it takes and returns

        def __call__(self, input: Tensor, skip: Tensor | None = None, gate: Tensor | None = None) -> Tensor: ...


class InstanceNorm1d(_InstanceNorm, torch.nn.InstanceNorm1d, space=1):
    pass


class InstanceNorm2d(_InstanceNorm, torch.nn.InstanceNorm2d, space=2):
    pass


class InstanceNorm3d(_InstanceNorm, torch.nn.InstanceNorm3d, space=3):
    pass
