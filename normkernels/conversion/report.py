"""What a conversion did, and what it left alone."""

import sys
from collections import Counter
from typing import NamedTuple, Self

from torch import nn

from normkernels.conversion.become import base


class Change(NamedTuple):
    """A module that is something else now."""

    name: str
    before: str
    after: str


class Note(NamedTuple):
    """A module, and what is to be said of it."""

    name: str
    module: str
    text: str


class Report:
    """``changed``: (name, before, after); ``fused``: (name, module, how); ``left``: (name, module, why)."""

    def __init__(self) -> None:
        self.changed: list[Change] = []
        self.fused: list[Note] = []
        self.left: list[Note] = []

    def __str__(self) -> str:
        rows = Counter(f"changed {c.before} -> {c.after}" for c in self.changed)
        rows += Counter(f"fused   {n.module} {n.text}" for n in self.fused)
        rows += Counter(f"left    {n.module}: {n.text}" for n in self.left)
        return "".join(f"{count:4d} {row}\n" for row, count in rows.items()) or "no norm found\n"

    def __repr__(self) -> str:
        return f"Report(changed={len(self.changed)}, fused={len(self.fused)}, left={len(self.left)})"

    def show(self) -> Self:
        sys.stdout.write(str(self))
        return self


def label(module: nn.Module) -> str:
    """Whose class, and its name: torch.LayerNorm; of a parametrized one that of what it is beside."""
    cls = base(module)
    return f"{cls.__module__.split('.')[0]}.{cls.__name__}"
