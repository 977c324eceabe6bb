"""From arguments to rows, and from rows to the terminal and files."""

import time
from dataclasses import replace
from itertools import product

import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import base, machine, report, shapes, tables
from bench.providers import CHANNELS, Task, available
from bench.report import Row
from bench.run import overhead, run
from bench.timing import own_stream
from normkernels.backends import NAMES
from normkernels.cases import OPS


def main(args, device: str, deadline: float) -> int:
    """Everything, in order; the exit status: 1 if a backend of ours is off, or if no shape was run."""
    out, tasks = tables.console(), _tasks(args, device)
    about = machine.describe(device, args.threads, machine.copy_gb_s(device))
    out.print("# " + machine.line(about), highlight=False, soft_wrap=True)
    rows = _run(args, device, tasks, deadline, about, out)
    if args.base:
        base.add_column(args, rows, device, out)
    out.print(tables.table(rows, device))
    calls = [row for n in args.threads for row in overhead(device, 0.1 if args.quick else 0.5, n)]
    out.print(tables.overhead_table(calls))
    out.print(tables.summary_table(report.summary(rows)))
    _write(args, rows + calls, about, out)
    return _verdict(rows, out)


def _tasks(args, device: str) -> list[Task]:
    """Shapes outermost: when time runs out, every op has been seen on the first ones."""
    timed = [op for op in OPS if op in shapes.RANKS]  # NormProp's time is its product's: bench.normprop
    ops = args.op or [*timed, *([] if args.quick else shapes.VARIANTS)]
    for op in ops:
        stem, *extras = op.split("+")
        if stem not in timed or ("residual" if stem in CHANNELS else "skip") in extras:
            raise SystemExit(
                f"bench: op must be one of {', '.join(timed)} (with +activation, and +residual, or +skip for "
                f"{', '.join(CHANNELS)}), got {op!r}"
            )
    listed = {op: shapes.of(op, device, args.quick, args.shape) for op in ops}
    turns = product(range(max(map(len, listed.values()))), args.dtype, ops)
    tasks = [Task(op, listed[op][i], getattr(torch, dtype), device) for i, dtype, op in turns if i < len(listed[op])]
    if not tasks:
        raise SystemExit(
            f"bench: no shape of {' '.join(args.shape)} fits {', '.join(ops)}: rows are MxN, images NxCxHxW"
        )
    return tasks


def _run(args, device: str, tasks: list[Task], deadline: float, about: dict, out) -> list[Row]:
    """The rows, printed and written as they come where nobody watches a progress bar."""
    seconds = args.seconds or (0.08 if args.quick else 0.25)
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
    rows: list[Row] = []
    with Progress(*columns, console=out, transient=True) as progress, own_stream(device):
        bar = progress.add_task("", total=len(tasks) * len(args.threads))
        for threads, task in product(args.threads, tasks):
            if time.monotonic() > deadline:
                break
            progress.update(bar, description=f"{task.op} {task.shape} {str(task.dtype)[6:]}")
            left_out = [*args.without, *(["compile"] if args.quick else [])]
            names = args.backend or [n for n in available(task.op, device) if n not in left_out]
            try:
                found = run(replace(task), names, args.mode, threads, seconds)
            except torch.OutOfMemoryError:
                out.print(f"[yellow]{task.op} {task.shape} does not fit in memory[/]")
            else:
                rows += found
                _tell(args, found, rows, about, out)
            progress.advance(bar)
        left = int(progress.tasks[0].remaining)
    if left:
        out.print(f"[yellow]time is up: {left} of {len(tasks) * len(args.threads)} shapes were not run[/]")
    order = list(dict.fromkeys(task.op for task in tasks))
    return sorted(rows, key=lambda row: (row.threads, order.index(row.op)))


def _tell(args, found: list[Row], rows: list[Row], about: dict, out) -> None:
    """What a shape gave, at once: a run that is cut short has told what it found until then."""
    if not out.is_terminal:
        out.print("\n".join(map(tables.line, found)), highlight=False, markup=False, soft_wrap=True)
    if args.json:
        report.write_json(args.json, rows, about)


def _write(args, rows: list[Row], about: dict, out) -> None:
    if args.csv:
        report.write_csv(args.csv, rows, about)
    if args.json:
        report.write_json(args.json, rows, about)
    if args.plot:
        from bench.plots import write_plots  # matplotlib is only needed here

        out.print(f"{len(write_plots(args.plot, rows, machine.line(about)))} plots in {args.plot}")


def _verdict(rows: list[Row], out) -> int:
    """Tells what went wrong; only what is ours decides the exit status."""
    told = dict.fromkeys((r.op, r.shape, r.dtype, r.backend, r.check) for r in rows if r.check not in ("", "ok"))
    for *what, backend, check in told:
        if backend in NAMES or not check.startswith("OFF"):
            out.print(f"{' '.join(what)} {backend}: {check}", style="red", highlight=False, markup=False)
    return int(not rows or any(backend in NAMES for *_, backend, _ in told))
