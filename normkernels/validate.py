"""``python -m normkernels validate``: every op, backend and dtype against float64, the worst error and where it is."""

import argparse
import dataclasses
import json
import sys
from itertools import product

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from normkernels.backends import NAMES, unusable
from normkernels.cases import OPS, Op
from normkernels.tolerance import check

DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}


@dataclasses.dataclass
class Result:
    """One op on one backend in one dtype: its worst sample, or why there is none."""

    op: str
    backend: str
    dtype: str
    device: str
    status: str = "ok"  # ok, off, error, unusable
    samples: int = 0
    worst: float = 0.0  # in units of what is allowed
    where: str = ""  # sample, tensor and index of the worst element
    detail: str = ""  # what a miss looks like, or why there is no result


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status: 1 if anything missed its tolerance or failed."""
    args = _parse(argv)
    console = Console()
    combinations = list(product(args.ops or OPS, args.backend, args.dtype))
    results = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(combinations))
        for stem, backend, dtype in combinations:
            progress.update(task, advance=1, description=f"{stem} {backend} {dtype}")
            results.append(_validate(OPS[stem], backend, dtype, args.device, args.quick))
    console.print(_table(results, args.device))
    for line in dict.fromkeys(f"{r.backend}: {r.detail}" for r in results if r.status == "unusable"):
        console.print(f"[yellow]unusable[/] {line}", highlight=False)
    for r in results:
        if r.status in ("off", "error"):
            console.print(f"[red]{r.status}[/] {r.op} {r.backend} {r.dtype}: {r.detail}", highlight=False)
    if args.json:
        with open(args.json, "w") as file:
            json.dump([dataclasses.asdict(r) for r in results], file, indent=1)
    return int(any(r.status in ("off", "error") for r in results))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m normkernels validate", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="op", help=f"{', '.join(OPS)}; default: all")
    parser.add_argument("--backend", nargs="+", choices=NAMES, default=NAMES, help="default: all")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="leave out the big samples")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.ops) - set(OPS))
    if unknown:
        parser.error(f"op must be one of {', '.join(OPS)}, got {', '.join(unknown)}")
    return args


def _validate(op: Op, backend: str, dtype: str, device: str, quick: bool) -> Result:
    result = Result(op.stem, backend, dtype, device)
    reasons = [unusable(backend, f"{op.stem}_{way}", device) for way in ("fwd", "bwd")]
    if any(reasons):
        return dataclasses.replace(result, status="unusable", detail=next(filter(None, reasons)))
    for sample in op.samples:
        if quick and sample.big:
            continue
        try:
            report = max(check(op, sample, backend, DTYPES[dtype], device), key=lambda r: r.worst)
        except Exception as error:  # a crash of one kernel must not hide what the others do
            return dataclasses.replace(
                result, status="error", where=sample.id, detail=f"{type(error).__name__}: {error}"
            )
        result.samples += 1
        if report.worst >= result.worst:
            result.worst, result.detail = report.worst, f"{sample.id}: {report}"
            result.where = f"{sample.id} {report.name.removeprefix(op.stem + ' ')} {list(report.where)}"
    result.status = "ok" if result.worst <= 1 else "off"
    return result


def _table(results: list[Result], device: str) -> Table:
    title = f"{device}, against the float64 reference; worst error in units of what is allowed"
    table = Table("op", "backend", "dtype", "samples", "worst", "", "where", title=title)
    colours = {"ok": "green", "off": "red", "error": "red", "unusable": "yellow"}
    for r in results:
        status = f"[{colours[r.status]}]{r.status}[/]"
        worst = f"{r.worst:.2f}" if r.status in ("ok", "off") else "-"
        table.add_row(r.op, r.backend, r.dtype, str(r.samples), worst, status, r.where)
    return table


if __name__ == "__main__":
    sys.exit(main())
