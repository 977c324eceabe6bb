"""``python -m bench.models``: training steps of small models with torch's norms, and with ours in their place.

The models of ``bench.zoo``; one thread, in turns, medians. Ours by ``normkernels.convert``, without and with what it
fuses; torch again says how far a ratio can be trusted.
"""

import argparse
import contextlib
import copy
import io
import sys
from collections.abc import Callable

import torch
from rich.table import Table
from torch import nn

import normkernels as nk

from .host import turns
from .tables import console
from .zoo import Model, models


def converted(model: nn.Module, fuse: bool) -> nn.Module:
    """A copy with our norms."""
    model = copy.deepcopy(model)
    with contextlib.redirect_stdout(io.StringIO()):
        nk.convert(model, fuse=fuse)
    return model


def step(model: Model, module: nn.Module) -> Callable[[], None]:
    def run() -> None:
        module.zero_grad()
        model(module).square().mean().backward()

    return run


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser("python -m bench.models", description=__doc__).parse_args(argv)
    torch.set_num_threads(1)
    out = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("model", "torch ms", "torch again", "ours", "ours fused"):
        out.add_column(name, justify="left" if name == "model" else "right")
    for model in models():
        plain = model.module
        variants = plain, copy.deepcopy(plain), converted(plain, fuse=False), converted(plain, fuse=True)
        steps = (step(model, m.train()) for m in variants)
        first, *others = turns(*steps, repeats=1, warm_up=3)  # the first are recorded
        out.add_row(model.name, f"{first / 1000:.1f}", *(f"{us / first:.3f}" for us in others))
    console().print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
