"""``synchronize_``: the norms of a model take their statistics over all processes."""

from typing import Any

from torch import nn

from normkernels.conversion import twins
from normkernels.conversion.become import base, become
from normkernels.conversion.report import Change, Note, Report, label
from normkernels.distributed.modules import SyncBatchNorm, SyncBatchRenorm
from normkernels.modules._extras import Extras
from normkernels.modules._state import Stateful
from normkernels.modules.batch_norm import _BatchNorm
from normkernels.modules.batch_renorm import _BatchRenorm
from normkernels.ops._checks import fail


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
        fail("synchronize_", "model", "be a torch.nn.Module", type(model).__name__)
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
