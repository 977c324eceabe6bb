"""Modules that feed each other, nested torch.nn.Sequentials as one, and what scales and shifts may pass."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from normkernels._folding import Pending
from normkernels.modules._normprop import NormProp

POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
RESHAPES = (nn.Flatten, nn.Unflatten)
PLAIN = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Link(NamedTuple):
    """A module of a chain: ``parent.name``."""

    parent: nn.Module
    name: str
    module: nn.Module

    def becomes(self, *modules: nn.Module) -> None:
        setattr(self.parent, self.name, modules[0] if len(modules) == 1 else nn.Sequential(*modules))


def chains(model: nn.Module) -> Iterator[list[Link]]:
    """The modules that feed each other; a NormProp layer that is in no Sequential is alone."""
    if _is_chain(model):
        chain = list(_flat(model))
        yield chain
        inner = [link.module for link in chain]
    else:
        links = [Link(model, name, child) for name, child in model.named_children()]
        yield from ([link] for link in links if isinstance(link.module, NormProp))
        inner = [link.module for link in links]
    for module in inner:
        yield from chains(module)


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _flat(sequence: nn.Module) -> Iterator[Link]:
    for name, child in sequence.named_children():
        if _is_chain(child):
            yield from _flat(child)
        else:
            yield Link(sequence, name, child)


def passes(module: nn.Module, pending: Pending) -> bool:
    """Whether scaling and shifting after the module is the same as before it."""
    if isinstance(module, RESHAPES):
        return pending.scale.numel() == 1
    if not isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
        return isinstance(module, POOLS + PLAIN)
    padding = module.padding if isinstance(module.padding, tuple) else (module.padding,)
    counts_zeros = any(padding) and module.count_include_pad
    return not counts_zeros and getattr(module, "divisor_override", None) is None
