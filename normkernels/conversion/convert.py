"""``convert`` and ``revert``."""

from collections.abc import Iterator

from torch import nn

from normkernels._checks import fail
from normkernels.conversion import batch_free, fusing, peers, propagation, twins
from normkernels.conversion.become import base, become, forget, go_back, memory
from normkernels.conversion.report import Change, Note, Report, label


def convert(model: nn.Module, to: str | None = None, fuse: bool = True) -> Report:
    """Make every norm of ``model`` one of ours, in place, and print what was done.

    Norms of torch.nn become their twins. Those of other libraries (RMS norms of transformers, with a gate too, norms
    with an activation of timm, with a residual of flash-linear-attention, frozen batch norms of torchvision, ...) are
    taken where a copy of them, with random numbers in it, computes what one of ours computes. The module objects stay
    the same ones: so do their parameters, buffers, names, hooks and parametrizations, and whoever holds them, an
    optimizer say.

    Args:
        model: any module, a norm itself too. Convert after loading weights of another library by its own functions.
        to: None, or what every batch norm becomes: ``"batch_renorm"``, ``"online"``, ``"streaming"`` (they start from
            its running statistics), ``"group"`` (32 groups, or the next lower number that divides C), ``"layer"`` (one
            group) or ``"instance"``. ``"normprop"`` makes a linear layer or convolution, its batch norm and the
            activation after it one :class:`normkernels.NormPropLinear` or ``NormPropConv2d``, in a torch.nn.Sequential.
        fuse: let norms take over the activation that follows them, the addition before a row norm and the one after a
            channel norm: in a torch.nn.Sequential, and in a forward that torch.fx can trace; never where a hook
            listens.

    Returns:
        a report: ``changed``, a list of (name, before, after, how), and ``left``, a list of (name, module, why). It has
        been printed.

    Raises:
        ValueError: ``to`` is none of these, or ``model`` no module.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.GELU())
        >>> report = convert(model)
           1 changed torch.LayerNorm -> normkernels.LayerNorm
           1 fused   normkernels.LayerNorm with gelu
    """
    _check("convert", model)
    members = (*batch_free.MEMBERS, propagation.MEMBER)
    if to is not None and to not in members:
        fail("convert", "to", f"be None or one of {', '.join(members)}", repr(to))
    report = Report()
    if to == propagation.MEMBER:
        propagation.propagate(model, report)
    for name, module in _norms(model):
        before, found = label(module), peers.counterpart(module)
        if to is not None and isinstance(found, batch_free.BATCH_NORMS):
            found = batch_free.member(module, found, to)
        if isinstance(found, str):
            report.left.append(Note(name, before, found))
        elif found is not module:
            become(module, found)
            report.changed.append(Change(name, before, label(module)))
    if fuse:
        fusing.fuse(model, report)
    return report.show()


def revert(model: nn.Module) -> Report:
    """Undo :func:`convert`, in place, and make every other norm of ours that of torch.nn, where it has one.

    Parameters and buffers keep the values that they have now.

    Args:
        model: any module, a norm itself too.

    Returns:
        a report as of :func:`convert`, printed too; ``left`` names what torch.nn has no layer for.

    Raises:
        ValueError: ``model`` is no module.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        >>> _, _ = convert(model), revert(model)
           1 changed torch.BatchNorm2d -> normkernels.BatchNorm2d
           1 fused   normkernels.BatchNorm2d with relu
           1 changed normkernels.BatchNorm2d -> torch.BatchNorm2d
    """
    _check("revert", model)
    report = Report()
    propagation.undo(model, report)
    fusing.undo(model)
    for name, module in model.named_modules():
        before = label(module)
        if memory(module) is not None:
            while memory(module) is not None:
                go_back(module)
        elif not twins.is_ours(module):
            continue
        elif why := twins.without_twin(module, base(module)):
            report.left.append(Note(name, before, why))
            continue
        else:
            become(module, twins.template(module, twins.PLAIN[base(module)]))
            forget(module)
        report.changed.append(Change(name, before, label(module)))
    return report.show()


def _check(function: str, model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        fail(function, "model", "be a torch.nn.Module", type(model).__name__)


def _norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    yield from [(name, m) for name, m in model.named_modules() if twins.is_norm(m)]
