"""SyncBatchNorm, SyncBatchRenorm and ``synchronize_``: one batch over several processes."""

from typing import Any, Never

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.types import Device

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels._backends import requested
from normkernels._backends.reference.batch_renorm import corrected, correction
from normkernels.conversion import twins
from normkernels.conversion.become import base, become
from normkernels.conversion.report import Change, Note, Report, label
from normkernels.distributed.batch_norm import spanning
from normkernels.distributed.statistics import moments, spans
from normkernels.modules._extras import Extras
from normkernels.modules._leaf import leaf
from normkernels.modules._state import Stateful
from normkernels.modules.batch_norm import _BatchNorm
from normkernels.modules.batch_renorm import _BatchRenorm
from normkernels.ops import _channels
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._state import advance, count, sound


class _AnyRank:
    """Mixin: as many dims of space as there are."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            rule = "have at least 2 dimensions (N, C, *)"
            _checks.fail(type(self).__name__, "input", rule, f"shape {tuple(input.shape)}")


class SyncBatchNorm(_AnyRank, _BatchNorm):
    """Batch normalisation with the statistics of all processes: torch.nn's, on CPUs too, and what can be fused.

    Each process may have a number of samples of its own, or none. One small exchange forward and one backward; nothing
    waits for the host. Outside of training, and in one process, it is BatchNorm2d for any number of dimensions.
    Gradients of weight and bias are those of this process's samples: DistributedDataParallel adds them up.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in torch.nn.SyncBatchNorm.
        process_group: of torch.distributed; None is the default group.
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied last.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input and skip ``(N, C, *)``; output the same, in input's memory layout.

    Attributes: as in torch.nn.SyncBatchNorm, whose state_dict loads.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.
        RuntimeError: another reads ``eps`` to put a plain layer in place of one that does more.

    Example:
        >>> nk.SyncBatchNorm(8, activation="relu")(torch.randn(4, 8, 5, 5)).shape
        torch.Size([4, 8, 5, 5])

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2, over the batches of all processes.
    """

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, process_group: Any = None, device: Device = None,
        dtype: torch.dtype | None = None, *, bias: bool = True, activation: Activation | None = None,
        slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras: dict[str, Any] = {"bias": bias, "activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, **extras)
        self.process_group = process_group

    @classmethod
    def convert_sync_batchnorm(cls, module: torch.nn.Module, process_group: Any = None) -> torch.nn.Module:
        """:func:`synchronize_`, by torch's name for it; returns ``module``, which is changed in place."""
        synchronize_(module, process_group)
        return module

    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        training = (self.training and not self.frozen_statistics) or self.running_mean is None
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)
        if not training or not spans(self.process_group):
            return super().forward(input, skip)
        self._check_input_dim(input)
        eps, momentum, tracked = self.__dict__["eps"], self.momentum, self.num_batches_tracked
        x, added, weight, bias = _channels.check_channels("SyncBatchNorm", input, self.weight, self.bias, skip)
        found, y = spanning(x, added, weight, bias, eps, self.extras, self.process_group)
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


class SyncBatchRenorm(_AnyRank, _BatchRenorm):
    """Batch renormalisation with the statistics of all processes.

    As SyncBatchNorm; the running statistics are the same bits everywhere.

    Args:
        num_features, eps, momentum, affine, device, dtype: as in BatchRenorm2d.
        process_group: of torch.distributed; None is the default group.
        r_max, d_max, warmup_steps, r_ramp_steps, d_ramp_steps: as in BatchRenorm2d.
        bias, activation, slope, backend: as in BatchRenorm2d.

    Shape:
        input and skip ``(N, C, *)``; output the same, in input's memory layout.

    Attributes: as in BatchRenorm2d.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.

    Example:
        >>> nk.SyncBatchRenorm(8, activation="relu")(torch.randn(4, 8, 5, 5)).shape
        torch.Size([4, 8, 5, 5])

    Source: Ioffe 2017, arXiv:1702.03275, algorithm 1, over the batches of all processes.
    """

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.01, affine: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, process_group: Any = None, r_max: float = 3.0, d_max: float = 5.0,
        warmup_steps: int = 5000, r_ramp_steps: int = 35000, d_ramp_steps: int = 20000, bias: bool = True,
        activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        ramp: dict[str, Any] = {"r_max": r_max, "d_max": d_max, "warmup_steps": warmup_steps}
        ramp |= {"r_ramp_steps": r_ramp_steps, "d_ramp_steps": d_ramp_steps}
        extras: dict[str, Any] = {"bias": bias, "activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, momentum, affine, device, dtype, **ramp, **extras)
        self.process_group = process_group

    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)
        if not self._statistics_move() or not spans(self.process_group):
            return super().forward(input, skip)
        self._check_input_dim(input)
        x, added, weight, bias = _channels.check_channels("SyncBatchRenorm", input, self.weight, self.bias, skip)
        dtype = statistic_dtype(x)

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
            _, y = spanning(x, added, scale, shift, self.eps, self.extras, self.process_group, found)
            return y, [*sound(moved, before, batch), state[2] + 1]

        return advance(self.running_mean, [self.running_mean, self.running_std, self.num_batches_tracked], run)


def synchronize_(model: nn.Module, process_group: Any = None) -> Report:
    """Make every batch norm (ours or torch.nn's) and batch renorm of ``model`` take the statistics of all processes.

    In place, as :func:`convert`: the same module objects, parameters, buffers, hooks, activations, what is frozen.
    Before DistributedDataParallel, which averages the gradients of weights. :func:`revert` is the way back.

    Args:
        model: any module, a norm itself too.
        process_group: of torch.distributed; None is the default group.

    Returns:
        a report, printed too: ``changed``, and ``left``: online and streaming norms, whose states stay each process's.

    Example:
        >>> _ = synchronize_(torch.nn.Sequential(torch.nn.BatchNorm1d(8)))
           1 changed torch.BatchNorm1d -> normkernels.SyncBatchNorm
    """
    if not isinstance(model, nn.Module):
        _checks.fail("synchronize_", "model", "be a torch.nn.Module", type(model).__name__)
    report = Report()
    for name, module in model.named_modules():
        before, new = label(module), _synchronised(module, process_group)
        if new is not None:
            become(module, new)
            report.changed.append(Change(name, before, label(module)))
        elif isinstance(module, Stateful) and not isinstance(module, SyncBatchRenorm):
            report.left.append(Note(name, before, "each process keeps its own state"))
    return report.show()


def _synchronised(module: Any, group: Any) -> nn.Module | None:
    """As a template; None where there is nothing to do or no such form."""
    if isinstance(module, SyncBatchNorm | SyncBatchRenorm):
        module.process_group = group
        return None
    if isinstance(module, _BatchNorm) or (
        base(module) in twins.TWINS and isinstance(module, nn.modules.batchnorm._BatchNorm)
    ):
        extras = module.extras if isinstance(module, Extras) else {}
        new: Any = twins.template(module, SyncBatchNorm, process_group=group, **extras)
    elif isinstance(module, _BatchRenorm):
        numbers = module.eps, module.momentum, module.affine
        options = module._ramp()._asdict() | module.extras | twins.place(module)
        new = SyncBatchRenorm(module.num_features, *numbers, process_group=group, **options)
    else:
        return None
    if getattr(module, "frozen_statistics", False):
        new.frozen_statistics = True
    return new
