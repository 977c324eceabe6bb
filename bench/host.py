"""``python -m bench.host``: what a call costs where the work is small, beside the torch.nn layer that one would use.

Microseconds of one thread, medians of rounds in which both take turns; each bar is a multiple of the other's time. A
step is forward and backward. The first calls of a layer, which are recorded, are not timed.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from rich.table import Table
from torch import nn

import normkernels as nk
from normkernels import _replays

from . import fake_driver
from .tables import console

ROUNDS, CALLS = 15, 200


class Row(NamedTuple):
    """A layer of ours, what it is measured against, and their inputs."""

    name: str
    ours: nn.Module
    other: nn.Module
    x: torch.Tensor
    other_x: torch.Tensor
    bar: float
    no_grad_bar: float | None


def rows() -> Iterator[Row]:
    """Those of the bars, in groups: plain layers, what is fused into them, streams."""
    for shape in ((1, 128), (64, 256)):
        yield _row(nk.LayerNorm, nn.LayerNorm, shape[-1:], shape)
        yield _row(nk.RMSNorm, nn.RMSNorm, shape[-1:], shape)
    yield _row(nk.BatchNorm1d, nn.BatchNorm1d, (128,), (32, 128))
    for shape in ((4, 64, 8, 8), (64, 64, 8, 8)):
        yield _row(nk.BatchNorm2d, nn.BatchNorm2d, (64,), shape)
        yield _row(nk.GroupNorm, nn.GroupNorm, (8, 64), shape)
        yield _row(nk.InstanceNorm2d, nn.InstanceNorm2d, (64,), shape, affine=True)
    yield _fused(nk.LayerNorm, nn.LayerNorm, (128,), (1, 128), 0.9)
    yield _fused(nk.BatchNorm1d, nn.BatchNorm1d, (128,), (32, 128), 1.0)
    yield _fused(nk.BatchNorm2d, nn.BatchNorm2d, (64,), (4, 64, 8, 8), 1.0)
    yield _fused(nk.GroupNorm, nn.GroupNorm, (8, 64), (4, 64, 8, 8), 1.0)
    one, batch = torch.randn(1, 128), torch.randn(32, 128)
    yield Row("OnlineNorm1d / torch's BatchNorm1d", nk.OnlineNorm1d(128), nn.BatchNorm1d(128), one, batch, 1.5, None)
    for kind in (nk.BatchRenorm1d, nk.StreamingNorm1d):
        yield Row(f"{kind.__name__} / our BatchNorm1d", kind(128), nk.BatchNorm1d(128), batch, batch, 1.3, None)
    plain, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), torch.randn(1, 64)
    yield Row("NormPropLinear / Linear + ReLU", nk.NormPropLinear(64, 64), plain, x, x, 1.3, None)


def _row(ours, theirs, args: tuple, shape: tuple, **options) -> Row:
    x = torch.randn(shape)
    return Row(ours.__name__, ours(*args, **options), theirs(*args, **options), x, x, 1.25, 1.5)


def _fused(ours, theirs, args: tuple, shape: tuple, bar: float) -> Row:
    x = torch.randn(shape)
    separate = nn.Sequential(theirs(*args), nn.ReLU())
    return Row(f"{ours.__name__} + ReLU", ours(*args, activation="relu"), separate, x, x, bar, None)


def step(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    x = x.clone().requires_grad_()
    leaves, dy = [x, *module.parameters()], torch.randn_like(module(x))
    return lambda: torch.autograd.grad(module(x), leaves, dy)


def no_grad(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    def call():
        with torch.no_grad():
            return module(x)

    return call


def turns(*calls: Callable[[], object], repeats: int = CALLS, warm_up: int = 1) -> list[float]:
    """Median microseconds of each, which are called so many times in each round."""
    times: list[list[float]] = [[] for _ in calls]
    for round in range(ROUNDS + warm_up):
        for call, spent in zip(calls, times, strict=True):
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            if round >= warm_up:
                spent.append((time.perf_counter() - start) / repeats * 1e6)
    return [statistics.median(spent) for spent in times]


def launchers() -> Iterator[tuple[str, float, float]]:
    """(call, microseconds, bar) of Triton's launchers, whose kernels never run."""
    fake_driver.install()
    x, leaf = torch.randn(64, 256).requires_grad_(), torch.randn(64, 256).requires_grad_()
    for layer, given, bars in (
        (nk.LayerNorm(256, backend="triton"), x, (12.0, 9.0)),
        (nk.BatchNorm2d(64, backend="triton"), torch.randn(4, 64, 8, 8).requires_grad_(), (12.0, 15.0)),
    ):
        leaves, product = [given, *layer.parameters()], leaf * 2
        for _ in range(4):
            torch.autograd.grad(layer(given), leaves, torch.ones_like(given))
        y, dy, of_product = layer(given), torch.randn_like(given), torch.randn_like(product)
        forward, backward, alone = turns(
            lambda: layer(given),  # noqa: B023
            lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True),  # noqa: B023
            lambda: torch.autograd.grad(product, leaf, of_product, retain_graph=True),  # noqa: B023
        )
        yield f"{type(layer).__name__} forward, autograd's node included", forward, bars[0]
        yield f"{type(layer).__name__} backward, less that of a product", backward - alone, bars[1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.host", description=__doc__)
    parser.add_argument("--csv", metavar="FILE")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    out = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("layer", "shape", "mode", "ours us", "other us", "ours / other", "bar"):
        out.add_column(name, justify="left" if name in ("layer", "shape", "mode") else "right")
    plain, missed, lines = [], 0, []
    for row in rows():
        modes = [("step", step, row.bar)] + ([("no grad", no_grad, row.no_grad_bar)] if row.no_grad_bar else [])
        for mode, make, bar in modes:
            ours, other = turns(make(row.ours, row.x), make(row.other, row.other_x))
            missed += ours > bar * other
            plain += [ours / other] if row.no_grad_bar and mode == "step" else []
            shape, style = "x".join(map(str, row.x.shape)), "red" if ours > bar * other else None
            told = f"{ours:.1f}", f"{other:.1f}", f"{ours / other:.2f}", f"{bar:.2f}"
            out.add_row(row.name, shape, mode, *told, style=style)
            lines.append([row.name, shape, mode, *told])
    screen = console()
    screen.print(out)
    screen.print(
        f"Plain layers, a step: {statistics.geometric_mean(plain):.2f} in the geometric mean; {missed} bars missed."
    )
    if not torch.cuda.is_available():
        for name, us, bar in launchers():
            screen.print(
                f"{name}: {us:.1f} us without a GPU's driver (bar {bar:.0f})", style=None if us <= bar else "red"
            )
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            csv.writer(file).writerows([[str(c.header) for c in out.columns], *lines])
    screen.print("Replayed." if _replays.extension else f"By Python: {_replays.missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
