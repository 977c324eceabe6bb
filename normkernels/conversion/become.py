"""A module becomes another one, in place: the object stays, with its parameters, hooks and all who hold it."""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from normkernels.modules._extras import say_again

_EVERY_MODULE = frozenset(vars(nn.Module()))
_MEMORY = "_converted_from"  # the attribute that holds a Before


class Before(NamedTuple):
    """What it takes to go back: the class, attributes that were replaced or came, and the buffers.

    Of a buffer that the new class has too the value is not kept: an empty tensor stands for its dtype.
    """

    base: type[nn.Module]
    attributes: dict[str, Any]
    added: list[str]
    absent: list[str]  # parameters that came and are None, as those that a layer of that class leaves out
    buffers: dict[str, torch.Tensor | None]
    earlier: Any  # what this one hides: a module may become another one twice


def base(module: nn.Module) -> type[nn.Module]:
    """Its class; of a parametrized one that which it had before, for torch makes a class for each of those."""
    cls = type(module)
    return cls.__bases__[0] if parametrize.is_parametrized(module) else cls


def memory(module: nn.Module) -> Before | None:
    return vars(module).get(_MEMORY)


def become(module: nn.Module, template: nn.Module) -> None:
    """``module`` takes class, attributes and buffers of ``template``, keeping parameters and what has the same name."""
    found, wanted = vars(module), {k: v for k, v in vars(template).items() if k not in _EVERY_MODULE}
    replaced = {k: found[k] for k, v in wanted.items() if k in found and not _same(found[k], v)}
    gone = [k for k in module._buffers if k not in template._buffers and k not in template._parameters]
    old = {k: t if t is None or k in gone else t.new_empty(0) for k, t in module._buffers.items()}
    absent = [k for k, t in template._parameters.items() if t is None and not hasattr(module, k)]
    added = [k for k in wanted if k not in found]
    before = Before(base(module), replaced, added, absent, old, found.get(_MEMORY))
    for name in gone:
        del module._buffers[name]
    _set_class(module, type(template))
    found.update(wanted)
    module._parameters.update(dict.fromkeys(absent))
    for name, t in template._buffers.items():
        if t is not None and name not in module._parameters and module._buffers.get(name) is None:
            module.register_buffer(name, t)
    if widen := getattr(module, "_widen", None):
        widen(dict(module._buffers))
    found[_MEMORY] = before
    say_again(module)


def forget(module: nn.Module) -> None:
    """There is no way back any more."""
    vars(module).pop(_MEMORY)


def go_back(module: nn.Module) -> None:
    """Undo :func:`become`; what both classes have keeps the value that it has now."""
    before = vars(module).pop(_MEMORY)
    if before.earlier is not None:
        vars(module)[_MEMORY] = before.earlier
    _set_class(module, before.base)
    for name in before.added:
        vars(module).pop(name, None)
    for name in before.absent:
        module._parameters.pop(name)
    vars(module).update(before.attributes)
    device = next((t.device for t in [*module.parameters(False), *module.buffers(False)]), None)
    found = dict(module._buffers)
    module._buffers.clear()
    for name, old in before.buffers.items():
        t = found.get(name, old)
        if t is not None and old is not None and t.dtype != old.dtype and t.dtype == torch.float32:
            t = t.to(old.dtype)  # it was widened
        module._buffers[name] = t if t is None or device is None else t.to(device)
    say_again(module)


def forward_before(module: nn.Module, *args: Any, **named: Any) -> Any:
    """What the forward of the class that it had gives, for calls that only that one knows."""
    before: Any = memory(module)
    old = type(module).__new__(type(module))
    vars(old).update({**vars(module), **before.attributes})  # what both hold, they share
    _set_class(old, before.base)
    return before.base.forward(old, *args, **named)


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and not isinstance(one, torch.Tensor) and one == other)


def _set_class(module: nn.Module, cls: type[nn.Module]) -> None:
    if parametrize.is_parametrized(module):
        own = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__", "__doc__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), own)
    module.__class__ = cls
