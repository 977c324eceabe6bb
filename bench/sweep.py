"""``python -m bench.sweep``: every plain norm over a grid of shapes, ours against torch eager, odd and small ones too.

A line of the CSV for each shape, written as soon as it is measured; what is there already is not measured again. The
table and the heat map are made from the file: the geometric mean of torch's time over ours, by torch's own time.
"""

import argparse
import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.progress import track
from rich.table import Table

import normkernels.functional as nf

from .__main__ import keep_memory_mapped
from .host import ROUNDS, turns
from .machine import describe
from .tables import console

SIZES = 8, 33, 64, 77, 100, 128, 256, 333, 512, 768, 777, 1000, 1023, 1024, 1025, 2048, 3000, 4096, 8192, 16384
ROWS = [(m, n) for n in (*SIZES, 1 << 16, 1 << 20) for m in (16, 128, 1024, 8192) if m * n <= 1 << 23]
SIDES = (1, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112)
IMAGES = [
    (n, c, h, h) for n in (1, 4, 32) for c in (16, 64, 256, 512) for h in SIDES if 1 < n * h * h <= (1 << 23) // c
]
BINS = (0, 50, 200, 1000, math.inf)  # microseconds of torch's
ABOUT = ("cpu", "torch", "normkernels")
FIELDS = ("op", "dtype", "layout", "shape", "threads", "mode", "ours us", "torch us", *ABOUT)
SECONDS = 0.06  # of each, for a shape


class Case(NamedTuple):
    """One shape for one op: both functions take x, weight and bias."""

    op: str
    dtype: torch.dtype
    layout: str
    shape: tuple[int, ...]
    ours: Callable[..., torch.Tensor]
    torch: Callable[..., torch.Tensor]
    affine: int  # how many parameters it takes

    def key(self, threads: int, mode: str) -> tuple[str, ...]:
        shape = "x".join(map(str, self.shape))
        return self.op, str(self.dtype).removeprefix("torch."), self.layout, shape, str(threads), mode


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ROWS:
            n = shape[1:]
            yield Case(
                "layer_norm", dtype, "", shape, lambda x, w, b, n=n: nf.layer_norm(x, n, w, b),
                lambda x, w, b, n=n: F.layer_norm(x, n, w, b), 2,
            )  # fmt: skip
            yield Case(
                "rms_norm", dtype, "", shape, lambda x, w, n=n: nf.rms_norm(x, n, w),
                lambda x, w, n=n: F.rms_norm(x, n, w), 1,
            )  # fmt: skip
        for shape in IMAGES:
            for layout in ("", "channels_last"):
                for op, (ours, theirs) in CHANNELS.items():
                    if op != "instance_norm" or shape[2] > 1:
                        yield Case(op, dtype, layout, shape, ours, theirs, 2)


CHANNELS: dict[str, tuple[Any, Any]] = {
    "batch_norm": (
        lambda x, w, b: nf.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
    ),
    "group_norm": (lambda x, w, b: nf.group_norm(x, 8, w, b), lambda x, w, b: F.group_norm(x, 8, w, b)),
    "instance_norm": (
        lambda x, w, b: nf.instance_norm(x, weight=w, bias=b), lambda x, w, b: F.instance_norm(x, weight=w, bias=b)
    ),
}  # fmt: skip


def steps(case: Case, mode: str) -> list[Callable[[], Any]]:
    """Calls of ours and of torch's on the same inputs."""
    torch.manual_seed(0)
    x = torch.randn(case.shape).to(case.dtype)
    x = x.to(memory_format=torch.channels_last) if case.layout else x
    n = case.shape[1]
    given = [x, *(torch.ones(n, dtype=case.dtype) for _ in range(case.affine))]
    given, dy = [t.requires_grad_(mode == "step") for t in given], torch.randn_like(x)

    def step(function: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(*given), given, dy) if mode == "step" else function(*given)

    return [step(case.ours), step(case.torch)]


def race(*calls: Callable[[], Any]) -> list[float]:
    """Microseconds of each, medians of rounds in turns."""
    for _ in range(3):  # the first calls are recorded
        calls[0]()
    start = time.perf_counter()
    calls[0]()
    return turns(*calls, repeats=max(1, int(SECONDS / ROUNDS / (time.perf_counter() - start))))


def means(lines: list[dict[str, str]]) -> dict[tuple[str, str], list[tuple[float, int, int]]]:
    """{(op and layout, dtype): of each bin, (geometric mean of torch / ours, how many are below 1, of how many)}"""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for line in lines:
        theirs, ours = float(line["torch us"]), float(line["ours us"])
        at = next(i for i, top in enumerate(BINS[1:]) if theirs < top)
        name = f"{line['op']} {line['layout']}".strip()
        found.setdefault((name, line["dtype"]), [[] for _ in BINS[1:]])[at].append(theirs / ours)
    return {k: [(_mean(v), sum(r < 1 for r in v), len(v)) for v in bins] for k, bins in found.items()}


def _mean(ratios: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else math.nan


def table(lines: list[dict[str, str]]) -> Table:
    out = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("torch / ours (below 1, of)", "dtype", "< 50 us", "< 200 us", "< 1000 us", "longer"):
        out.add_column(name)
    for key, bins in sorted(means(lines).items()):
        out.add_row(*key, *(f"{mean:.2f} ({below} of {n})" if n else "-" for mean, below, n in bins))
    return out


def heat_map(lines: list[dict[str, str]], path: Path) -> None:
    """One cell for each cell of the table; white is torch's speed."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    cells = sorted(means(lines).items())
    grid = [[math.log2(mean) for mean, _, _ in bins] for _, bins in cells]
    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(cells) + 1.2), layout="constrained")
    image = axes.imshow(grid, cmap="RdBu", vmin=-1.5, vmax=1.5, aspect="auto")
    axes.set_yticks(range(len(cells)), [" ".join(k) for k, _ in cells])
    axes.set_xticks(range(len(BINS) - 1), ["< 50", "50-200", "200-1000", "> 1000"])
    axes.set_xlabel("torch's own time, microseconds")
    for i, (_, bins) in enumerate(cells):
        for j, (mean, _, n) in enumerate(bins):
            axes.text(j, i, f"{mean:.2f}" if n else "", ha="center", va="center")
    figure.colorbar(image, label="log2 of torch's time / ours")
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser("python -m bench.sweep", description=__doc__)
    p.add_argument("--csv", type=Path, default=Path("sweep.csv"), help="measured lines; what is there is kept")
    p.add_argument("--plot", type=Path, help="where the heat map goes (png)")
    p.add_argument("--only", default="", help="ops with this in their name")
    p.add_argument("--mode", choices=["step", "forward"], default="step", help="forward and backward, or inference")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--limit", type=float, default=math.inf, help="start no new shape after this many seconds")
    args = p.parse_args(argv)
    keep_memory_mapped()
    torch.set_num_threads(args.threads)
    known, start, about = lines_of(args.csv), time.monotonic(), describe("cpu", [args.threads], 0.0)
    seen = {tuple(line[f] for f in FIELDS[:6]) for line in known}
    wanted = [c for c in cases() if args.only in c.op and c.key(args.threads, args.mode) not in seen]
    with args.csv.open("a", newline="") as file:
        write = csv.writer(file)
        if not known:
            write.writerow(FIELDS)
        for case in track(wanted, "measuring", console=console(), transient=True):
            if time.monotonic() - start > args.limit:
                break
            with torch.set_grad_enabled(args.mode == "step"):
                ours, theirs = race(*steps(case, args.mode))
            write.writerow(
                [*case.key(args.threads, args.mode), f"{ours:.2f}", f"{theirs:.2f}", *(about[name] for name in ABOUT)]
            )
            file.flush()
    of_mode = [v for v in lines_of(args.csv) if (v["threads"], v["mode"]) == (str(args.threads), args.mode)]
    console().print(table(of_mode))
    if args.plot:
        heat_map(of_mode, args.plot)
    return 0


def lines_of(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    sys.exit(main())
