"""From arguments to rows, and from rows to the terminal and files."""

import difflib
import time
from dataclasses import replace
from itertools import product

import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from normkernels._backends import NAMES
from normkernels.cases import OPS

from . import base, checks, machine, own, report, shapes, tables
from .providers import CHANNELS, Task, available
from .report import Row
from .run import overhead, run
from .timing import own_stream


def main(args, device: str, deadline: float) -> int:
    """Everything, in order; the exit status: 1 if a backend of ours is off, or if no shape was run."""
    out, tasks = tables.console(), _tasks(args, device)
    checks.arguments(args, tasks)
    tasks = _with_own(args, tasks)
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
        near = "".join(f" (did you mean {name!r}?)" for name in difflib.get_close_matches(stem, timed, 1))
        if stem not in timed or ("residual" if stem in CHANNELS else "skip") in extras:
            raise SystemExit(
                f"bench: op must be one of {', '.join(timed)} (with +activation, and +residual, or +skip for "
                f"{', '.join(CHANNELS)}), got {op!r}{near}"
            )
    listed = {op: shapes.of(op, device, args.quick, args.shape) for op in ops}
    turns = product(range(max(map(len, listed.values()))), args.dtype, ops)
    tasks = [Task(op, listed[op][i], getattr(torch, dtype), device) for i, dtype, op in turns if i < len(listed[op])]
    if not tasks:
        raise SystemExit(
            f"bench: no shape of {' '.join(args.shape)} fits {', '.join(ops)}: rows are MxN, images NxCxHxW"
        )
    return tasks


def _with_own(args, tasks: list[Task]) -> list[Task]:
    """With the functions of ``--with``, each as the op of a task can call it."""
    found = {spec: own.load(spec) for spec in args.own}
    return [replace(t, own=tuple((spec, own.fitted(f, spec, t)) for spec, f in found.items())) for t in tasks]


def _run(args, device: str, tasks: list[Task], deadline: float, about: dict, out) -> list[Row]:
    """The rows, printed and written as they come where nobody watches a progress bar."""
    seconds = args.seconds or (0.08 if args.quick else 0.25)
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    rows: list[Row] = []
    start = time.monotonic()
    with Progress(*columns, console=out, transient=True) as progress, own_stream(device):
        bar = progress.add_task("", total=len(tasks) * len(args.threads))
        for threads, task in product(args.threads, tasks):
            if time.monotonic() > deadline:
                break
            progress.update(bar, description=f"{task.op} {task.shape} {str(task.dtype)[6:]}")
            left_out = [*args.without, *(["compile"] if args.quick else [])]
            names = args.backend or [n for n in available(task.op, device) if n not in left_out]
            names = [*names, *args.own]
            try:
                found = run(replace(task), names, args.mode, threads, seconds)
            except torch.OutOfMemoryError:
                out.print(f"[yellow]{task.op} {task.shape} does not fit in memory[/]")
            else:
                rows += found
                _tell(args, found, rows, about, out)
            progress.advance(bar)
            done, left = int(progress.tasks[0].completed), int(progress.tasks[0].remaining or 0)
            if left and not out.is_terminal:
                seconds_left = (time.monotonic() - start) / done * left
                out.print(f"{done} of {done + left} shapes, about {seconds_left:.0f} s to go", highlight=False)
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
        from .plots import write_plots  # matplotlib is only needed here

        out.print(f"{len(write_plots(args.plot, rows, about))} plots in {args.plot}")


def _verdict(rows: list[Row], out) -> int:
    """Tells what went wrong; only what is ours decides the exit status."""
    told = dict.fromkeys((r.op, r.shape, r.dtype, r.backend, r.check) for r in rows if r.check not in ("", "ok"))
    for *what, backend, check in told:
        if backend in NAMES or not check.startswith("OFF"):
            out.print(f"{' '.join(what)} {backend}: {check}", style="red", highlight=False, markup=False)
    return int(not rows or any(backend in NAMES for *_, backend, _ in told))
