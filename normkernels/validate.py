"""``python -m normkernels validate``: every op, backend and dtype against float64, the worst error and where it is."""

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from normkernels._backends import NAMES, unusable
from normkernels.cases import OPS, Op, Sample
from normkernels.tolerance import check

DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}
ORDER = ("native", "triton", "reference")  # those that are not compiled on the way first
SHARES = 3  # of the samples for each process: the more, the less is lost with a process, and the more start anew


@dataclasses.dataclass
class Result:
    """One op on one backend in one dtype: its worst sample, or why there is none."""

    op: str
    backend: str
    dtype: str
    device: str
    status: str = "ok"  # ok, off, error, unusable
    samples: int = 0  # tried
    of: int = 0
    worst: float = 0.0  # in units of what is allowed
    where: str = ""  # sample, tensor and index of the worst element
    detail: str = ""  # what a miss looks like, or why there is no result

    @property
    def bad(self) -> bool:
        return self.status in ("off", "error")

    def add(self, other: "Result") -> None:
        """What another share of the samples gave."""
        self.samples += other.samples
        if (other.status == "error", other.worst) >= (self.status == "error", self.worst):
            self.status, self.worst, self.where, self.detail = other.status, other.worst, other.where, other.detail


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status: 1 if anything missed its tolerance or failed."""
    args, console = _parse(argv), Console()
    keys = product(args.ops or OPS, args.backend, args.dtype)
    results = {(stem, backend, dtype): _expected(stem, backend, dtype, args) for stem, backend, dtype in keys}
    end, interrupted = time.monotonic() + args.seconds, False
    try:
        _run(args, results, console, end)
    except KeyboardInterrupt:
        interrupted = True
    console.print(_table(list(results.values()), args.device))
    for line in dict.fromkeys(f"{r.backend}: {r.detail}" for r in results.values() if r.status == "unusable"):
        console.print(f"[yellow]unusable[/] {line}", highlight=False)
    left = sum(r.of - r.samples for r in results.values())
    if left:
        console.print(f"[yellow]cut short: {left} of {sum(r.of for r in results.values())} samples were not tried[/]")
    _say(console, [r for r in results.values() if r.bad])
    return 1 if any(r.bad for r in results.values()) else 130 if interrupted else 0


def _run(args: argparse.Namespace, results: dict, console: Console, end: float) -> None:
    """Share after share, each some samples of every op, so that whatever is cut short has seen all of them."""
    shares = SHARES * args.jobs
    work = [
        ([op for op in args.ops or OPS if results[op, backend, dtype].of], backend, dtype, i, shares)
        for backend, dtype in product(sorted(args.backend, key=ORDER.index), args.dtype)
        for i in range(shares)
    ]
    task = partial(_share, device=args.device, quick=args.quick)
    with Progress(console=console, transient=True) as progress, _map(args.jobs) as each:
        bar = progress.add_task("", total=len(work))
        for found in each(task, work):
            new = [r for r in found if r.bad and not results[r.op, r.backend, r.dtype].bad]
            for r in found:
                results[r.op, r.backend, r.dtype].add(r)
            _say(console, new)
            _write(args.json, results)
            progress.update(bar, advance=1, description=" ".join(work[int(progress.tasks[0].completed)][1:3]))
            if time.monotonic() > end:
                return


@contextmanager
def _map(jobs: int) -> Iterator:
    """``map``, over processes if there are several; each share has its own: an error of a GPU stays in a process."""
    if jobs == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(jobs, torch.set_num_threads, (1,), maxtasksperchild=1) as pool:
        yield pool.imap_unordered


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m normkernels validate", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="op", help=f"{', '.join(OPS)}; default: all")
    parser.add_argument("--backend", nargs="+", choices=NAMES, default=NAMES, help="default: all")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="leave out the big samples")
    parser.add_argument("--jobs", type=int, default=1, help="processes; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start nothing new after so many")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there too, as they come")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.ops) - set(OPS))
    if unknown:
        parser.error(f"op must be one of {', '.join(OPS)}, got {', '.join(unknown)}")
    if args.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {args.jobs}")
    return args


def _expected(stem: str, backend: str, dtype: str, args: argparse.Namespace) -> Result:
    """A result to which shares are added: how many samples there are, or why none."""
    reasons = [unusable(backend, f"{stem}_{way}", args.device) for way in ("fwd", "bwd")]
    if any(reasons):
        return Result(stem, backend, dtype, args.device, "unusable", detail=next(filter(None, reasons)))
    return Result(stem, backend, dtype, args.device, of=len(_samples(OPS[stem], args.quick)))


def _samples(op: Op, quick: bool) -> list[Sample]:
    return [s for s in op.samples if not (quick and s.big)]


def _share(work: tuple, device: str, quick: bool) -> list[Result]:
    """Every so many-th sample of all ops."""
    stems, backend, dtype, first, shares = work
    samples = [(OPS[stem], sample) for stem in stems for sample in _samples(OPS[stem], quick)]
    return [_validate(op, sample, backend, dtype, device) for op, sample in samples[first::shares]]


def _validate(op: Op, sample: Sample, backend: str, dtype: str, device: str) -> Result:
    result = Result(op.stem, backend, dtype, device, samples=1, where=sample.id)
    try:
        report = max(check(op, sample, backend, DTYPES[dtype], device), key=lambda r: r.worst)
    except Exception as error:  # a crash of one kernel must not hide what the others do
        return dataclasses.replace(result, status="error", detail=f"{sample.id}: {type(error).__name__}: {error}")
    where = f"{sample.id} {report.name.removeprefix(op.stem + ' ')} {list(report.where)}"
    status = "ok" if report.worst <= 1 else "off"
    return dataclasses.replace(result, status=status, worst=report.worst, where=where, detail=f"{sample.id}: {report}")


def _say(console: Console, bad: list[Result]) -> None:
    for r in bad:
        console.print(f"[red]{r.status}:[/] {r.op} {r.backend} {r.dtype}: {r.detail}", highlight=False, soft_wrap=True)


def _write(path: Path | None, results: dict) -> None:
    """Whole at any moment, for it is read while results come."""
    if path:
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps([dataclasses.asdict(r) for r in results.values()], indent=1))
        os.replace(temporary, path)


def _table(results: list[Result], device: str) -> Table:
    title = f"{device}, against the float64 reference; worst error in units of what is allowed"
    table = Table("op", "backend", "dtype", "samples", "worst", "", "where", title=title)
    colours = {"ok": "green", "off": "red", "error": "red", "unusable": "yellow"}
    for r in results:
        status = f"[{colours[r.status]}]{r.status}[/]"
        worst = f"{r.worst:.2f}" if r.status in ("ok", "off") else "-"
        tried = str(r.samples) if r.samples == r.of else f"{r.samples} of {r.of}"
        table.add_row(r.op, r.backend, r.dtype, tried, worst, status, r.where)
    return table


if __name__ == "__main__":
    sys.exit(main())
