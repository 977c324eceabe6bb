"""SyncBatchNorm and SyncBatchRenorm: one batch over several processes."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.backends import requested
from normkernels.backends.reference.batch_renorm import corrected, correction
from normkernels.distributed import batch_norm
from normkernels.distributed.statistics import Moments, moments, spans
from normkernels.modules._leaf import leaf
from normkernels.modules.batch_norm import _BatchNorm
from normkernels.modules.batch_renorm import _BatchRenorm
from normkernels.ops import _channels, _checks
from normkernels.ops._state import advance, count, sound


class SyncBatchNorm(_BatchNorm):
    """Drop-in for :class:`torch.nn.SyncBatchNorm`, on CPUs too, with ``activation``, ``skip`` and ``freeze()``.

    The statistics, running ones included, are those of the samples of all processes together; they may have different
    numbers of samples, or none. One small exchange forward and one backward; no synchronisation with the host. Outside
    of training, and in one process, it is :class:`BatchNorm2d` for any number of dimensions.

    Args: as torch.nn.SyncBatchNorm; ``process_group`` None is the default group.

    Example:
        >>> SyncBatchNorm(8, activation="relu")(torch.randn(4, 8, 3, 3)).shape
        torch.Size([4, 8, 3, 3])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device=None,
        dtype=None,
        **extras,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, **extras)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            _checks.fail(
                "SyncBatchNorm", "input", "have at least 2 dimensions (N, C, *)", f"shape {tuple(input.shape)}"
            )

    @classmethod
    def convert_sync_batchnorm(cls, module: torch.nn.Module, process_group: Any = None) -> torch.nn.Module:
        """:func:`synchronize_`, by torch's name for it; returns ``module``, which is changed in place."""
        from normkernels.distributed.synchronize import synchronize_

        synchronize_(module, process_group)
        return module

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        training = (self.training and not self.frozen_statistics) or self.running_mean is None
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if not training or not spans(self.process_group):
            return super().forward(input, skip)
        self._check_input_dim(input)
        eps, momentum, tracked = self.__dict__["eps"], self.momentum, self.num_batches_tracked
        given = _given("SyncBatchNorm", input, self.weight, self.bias, skip)
        found, y = spanning(*given, eps, self.extras, self.process_group)
        if self.running_mean is None or not self.track_running_stats:
            return y
        if momentum is None:
            momentum = 0.0 if tracked is None else 1.0 / (float(tracked) + 1.0)
        running: Any
        for running, new in ((self.running_mean, found.mean), (self.running_var, found.unbiased())):
            _channels.update_running(running, torch.where(found.count > 0, new, running.to(new.dtype)), momentum)
        if tracked is not None:
            count(tracked)
        return y


class SyncBatchRenorm(_BatchRenorm):
    """:class:`BatchRenorm2d`, for any number of dimensions, with the statistics of all processes together.

    Args: as BatchRenorm2d, and ``process_group`` by name; None is the default group.

    Example:
        >>> SyncBatchRenorm(8, activation="relu")(torch.randn(4, 8, 3, 3)).shape
        torch.Size([4, 8, 3, 3])
    """

    _RANKS = tuple(range(2, 16))

    def __init__(self, num_features: int, *args, process_group: Any = None, **options) -> None:
        super().__init__(num_features, *args, **options)
        self.process_group = process_group

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if not self._statistics_move() or not spans(self.process_group):
            return super().forward(input, skip)
        self._check_input_dim(input)
        x, weight, bias, added = _given("SyncBatchRenorm", input, self.weight, self.bias, skip)
        dtype = _channels.statistic_dtype(x)

        def run(state):
            before = [t.to(dtype) for t in state[:2]]
            with torch.no_grad():
                found = moments(x, self.process_group, requested(self.extras["backend"], "batch_norm", x))
                batch = found.mean, (found.var + self.eps).sqrt()
                r_max, d_max = self._ramp().bounds(before[0], state[2])
                r, d = correction(found.mean[None], found.var[None], before[0], before[1], r_max, d_max, self.eps)
                moved = [torch.lerp(a, b, self.momentum) for a, b in zip(before, batch, strict=True)]
                moved = [torch.where(found.count > 0, new, old) for new, old in zip(moved, before, strict=True)]
            scale, shift = corrected(weight, bias, r, d)
            _, y = spanning(x, scale, shift, added, self.eps, self.extras, self.process_group, found)
            return y, [*sound(moved, before, batch), state[2] + 1]

        return advance(self.running_mean, [self.running_mean, self.running_std, self.num_batches_tracked], run)


def _given(name: str, input: Tensor, weight, bias, skip) -> tuple[Tensor, Any, Any, Any]:
    input, skip, weight, bias = _channels.check_channels(name, input, weight, bias, skip)
    return input, weight, bias, skip


def spanning(
    input: Tensor, weight, bias, skip, eps: float, extras: dict[str, Any], group: Any, found=None
) -> tuple[Moments, Tensor]:
    """(moments of all processes, y)"""
    if eps <= 0:
        _checks.fail("SyncBatchNorm", "eps", "be positive in training", eps)
    backend = requested(extras["backend"], "batch_norm", input)
    activation = _checks.check_activation("SyncBatchNorm", extras["activation"])
    settings = batch_norm.Settings(eps, activation, extras["slope"], backend, group)
    found = found or moments(input, group, backend)
    return found, batch_norm.apply(input, skip, weight, bias, found, settings)
