"""SyncBatchNorm, and ``synchronize_``: every norm whose statistics or state should span processes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._arguments import constructor
from normkernels.conversion import twins
from normkernels.conversion.become import base, become
from normkernels.conversion.report import Change, Report, label
from normkernels.distributed._spanning import Spanning
from normkernels.distributed.batch_norm import spanning
from normkernels.distributed.sync_batch_renorm import SyncBatchRenorm
from normkernels.distributed.sync_online_norm import SyncOnlineNorm
from normkernels.distributed.sync_streaming_norm import SyncStreamingNorm
from normkernels.modules._extras import Extras
from normkernels.modules.batch_norm import _BatchNorm
from normkernels.modules.batch_renorm import _BatchRenorm
from normkernels.modules.online_norm import _OnlineNorm
from normkernels.modules.streaming_norm import _StreamingNorm
from normkernels.ops import _channels
from normkernels.ops._state import count


class SyncBatchNorm(Spanning, _BatchNorm):
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

    def _statistics_move(self) -> bool:
        return (self.training and not self.frozen_statistics) or self.running_mean is None

    def _spanning(self, x: Tensor, added: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        eps, momentum, tracked = self.__dict__["eps"], self.momentum, self.num_batches_tracked
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


def synchronize_(model: nn.Module, process_group: Any = None) -> Report:
    """Make every norm of ``model`` with batch statistics or a state take the samples of all processes into account.

    Batch norms (ours or torch.nn's), batch renorms, online and streaming norms. In place, as :func:`convert`: the same
    module objects, parameters, buffers, hooks, activations, what is frozen. Before DistributedDataParallel, which
    averages the gradients of weights. :func:`revert` is the way back.

    Args:
        model: any module, a norm itself too.
        process_group: of torch.distributed; None is the default group.

    Returns:
        a report, printed too: ``changed``.

    Raises:
        ValueError: ``model`` is no module.

    Example:
        >>> _ = synchronize_(torch.nn.Sequential(torch.nn.BatchNorm1d(8)))
           1 changed torch.BatchNorm1d -> normkernels.SyncBatchNorm
    """
    if not isinstance(model, nn.Module):
        _checks.fail("synchronize_", "model", "be a torch.nn.Module", type(model).__name__)
    report = Report()
    for name, module in model.named_modules():
        if isinstance(module, SyncBatchNorm | SyncBatchRenorm | SyncOnlineNorm | SyncStreamingNorm):
            module.process_group = process_group
            continue
        before, new = label(module), _synchronised(module, process_group)
        if new is not None:
            if getattr(module, "frozen_statistics", False):
                new.frozen_statistics = True
            become(module, new)
            report.changed.append(Change(name, before, label(module)))
    return report.show()


def _synchronised(module: Any, group: Any) -> Any:
    """As a template; None where there is nothing to do."""
    if isinstance(module, _BatchNorm) or (
        base(module) in twins.TWINS and isinstance(module, nn.modules.batchnorm._BatchNorm)
    ):
        extras = module.extras if isinstance(module, Extras) else {}
        return twins.template(module, SyncBatchNorm, process_group=group, **extras)
    if isinstance(module, _BatchRenorm):
        numbers = module.eps, module.momentum, module.affine
        options = module._ramp()._asdict() | module.extras | twins.place(module)
        return SyncBatchRenorm(module.num_features, *numbers, process_group=group, **options)
    for kind, new in ((_OnlineNorm, SyncOnlineNorm), (_StreamingNorm, SyncStreamingNorm)):
        if isinstance(module, kind):
            options = {name: getattr(module, name) for name in new.NUMBERS} | module.extras | twins.place(module)
            return new(module.num_features, affine=module.affine, process_group=group, **options)
    return None
