"""Norms take over what follows them, where it is sure that nobody else sees what lay between."""

from collections import Counter
from itertools import pairwise
from typing import Any

from torch import nn

from normkernels.conversion import activations, rewriting
from normkernels.conversion.become import become, go_back, memory
from normkernels.conversion.report import Note, Report, label
from normkernels.conversion.second import Second
from normkernels.conversion.twins import is_ours

_TAKEN = "_activation_taken"  # on a norm: what it had before


def fuse(model: nn.Module, report: Report) -> None:
    names = {id(m): name for name, m in model.named_modules()}
    uses = Counter(id(c) for m in model.modules() for c in m._modules.values())
    for module in list(model.modules()):
        if type(module) is nn.Sequential and not activations.has_hooks(module):
            for norm, act in pairwise(module):
                if uses[id(norm)] == uses[id(act)] == 1 and (found := activations.of_module(act)) and free(norm):
                    take(norm, found)
                    become(act, nn.Identity())
                    report.fused.append(Note(names[id(norm)], label(norm), f"with {found[0]}"))
        elif any(free(c) and uses[id(c)] == 1 for c in module.children()):
            once = {name for name, c in module.named_children() if uses[id(c)] == 1 and free(c)}
            for name, how in rewriting.rewrite(module, once):
                norm = module.get_submodule(name)
                report.fused.append(Note(names[id(norm)], label(norm), how))


def undo(model: nn.Module) -> None:
    """Take all of it back; norms are then as :func:`convert` left them without it."""
    for module in model.modules():
        rewriting.undo(module)
        if _TAKEN in vars(module):
            module.extras = vars(module).pop(_TAKEN)  # type: ignore[assignment]
        if type(module) is nn.Identity and memory(module) is not None:
            go_back(module)


def free(norm: Any) -> bool:
    """Whether a norm of ours can take over an activation: it has none, nobody listens, and it is called as ours are."""
    return is_ours(norm) and not (norm.activation or isinstance(norm, Second) or activations.has_hooks(norm))


def take(norm: Any, found: tuple[str, float]) -> None:
    """The norm applies this activation from now on."""
    vars(norm)[_TAKEN] = norm.extras
    norm.extras = {**norm.extras, "activation": found[0], "slope": found[1]}
