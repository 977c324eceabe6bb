"""``python -m bench.ceilings``: what is left to win in the cells of the grid that are below a bar.

No step takes less than ours of next to nothing, which is what its calls cost, and the time in which as many bytes are
moved: a copy of x and a sum of x and dy, by torch. Where what one statistic depends on is more than a second-level
cache holds, x, and then x and dy, are read once more. ``torch / least`` is what torch's own speed leaves to win: a bar
above it is out of reach. ``least / ours`` is how much of it is won.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track
from rich.table import Table

from .__main__ import keep_memory_mapped
from .report import geometric_mean
from .sweep import BINS, Case, cases, lines_of, race, steps
from .tables import console

SECOND_CACHE = 1 << 20  # bytes
Cell = tuple[str, str, str, int]


class Found(NamedTuple):
    """Microseconds of one shape."""

    ours: float
    torch: float
    least: float


def of_a_statistic(case: Case) -> int:
    """Bytes that have to be read before the first result can be written."""
    images, channels, *sides = case.shape
    plane = math.prod(sides) * (channels if case.layout else 1)
    parts = {"batch_norm": images * plane, "group_norm": plane if case.layout else plane * channels // 8}
    return parts.get(case.op, plane if sides else channels) * case.dtype.itemsize


def bare(case: Case) -> Callable[[], object]:
    """The bytes of a step of it, moved by torch."""
    x = torch.randn(math.prod(case.shape)).to(case.dtype)
    dy, again = torch.randn_like(x), of_a_statistic(case) > SECOND_CACHE

    def call() -> object:
        sums = [x.sum()] if again else []
        y = torch.empty_like(x).copy_(x)
        sums += [torch.dot(x, dy)] if again else []
        return y, torch.add(x, dy), sums

    return call


def least(case: Case) -> float:
    """Microseconds below which no step of it is."""
    sides = case.shape[2:]
    small = case._replace(shape=(1, 16, *(2 for _ in sides)) if sides else (1, case.shape[1]))
    with torch.no_grad():
        moved, nothing = race(bare(case), bare(small))
    return race(*steps(small, "step"))[0] + max(0.0, moved - nothing)


def low_cells(lines: list[dict[str, str]], bar: float) -> dict[Cell, list[dict[str, str]]]:
    """The lines of those cells, from 50 microseconds of torch's on, whose mean is below the bar."""
    by_cell: dict[Cell, list[dict[str, str]]] = {}
    for line in lines:
        at = next(i for i, top in enumerate(BINS[1:]) if float(line["torch us"]) < top)
        by_cell.setdefault((line["op"], line["layout"], line["dtype"], at), []).append(line)
    ratios = {k: [float(i["torch us"]) / float(i["ours us"]) for i in v] for k, v in by_cell.items()}
    return {k: by_cell[k] for k in sorted(ratios) if k[-1] and (geometric_mean(ratios[k]) or 0) < bar}


def table(found: dict[Cell, list[Found]]) -> Table:
    out = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("cell", "dtype", "us of torch", "shapes", "torch / ours", "torch / least", "least / ours"):
        out.add_column(name)
    for (op, layout, dtype, at), shapes in found.items():
        ratios = zip(*((f.torch / f.ours, f.torch / f.least, f.least / f.ours) for f in shapes), strict=True)
        bounds = f"{BINS[at]} to {BINS[at + 1]}"
        out.add_row(f"{op} {layout}", dtype, bounds, str(len(shapes)), *(f"{geometric_mean(r):.2f}" for r in ratios))
    return out


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser("python -m bench.ceilings", description=__doc__)
    p.add_argument("csv", type=Path, help="lines of bench.sweep, measured on this machine")
    p.add_argument("--bar", type=float, default=1.3, help="cells whose mean is below it")
    args = p.parse_args(argv)
    keep_memory_mapped()
    torch.set_num_threads(1)
    every = {c.key(1, "step"): c for c in cases()}
    low = low_cells([v for v in lines_of(args.csv) if (v["threads"], v["mode"]) == ("1", "step")], args.bar)
    found: dict[Cell, list[Found]] = {k: [] for k in low}
    for key, line in track([(k, v) for k, lines in low.items() for v in lines], console=console(), transient=True):
        case = every[line["op"], line["dtype"], line["layout"], line["shape"], "1", "step"]
        found[key].append(Found(float(line["ours us"]), float(line["torch us"]), least(case)))
    console().print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
