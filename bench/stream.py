"""``python -m bench.stream``: a training step of online, renorm and streaming norm beside one of batch norm.

A step is forward and backward of one layer of each, on the same inputs, in turn. ``bar`` is the most that one may take,
in units of our own batch norm. torch eager's batch norm is there too: it is what would be used instead.
"""

import csv
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from rich.table import Table

import normkernels as nk
from normkernels._backends import NAMES

from . import machine, shapes
from .__main__ import DTYPES, keep_memory_mapped
from .comparisons import parser
from .providers import Task, available
from .tables import console
from .timing import measure, own_stream

BASE, PEER = "batch_norm", "torch.nn batch_norm"
CLASSES = {
    BASE: "BatchNorm",
    "online_norm": "OnlineNorm",
    "batch_renorm": "BatchRenorm",
    "streaming_norm": "StreamingNorm",
}
BARS = {"batch_renorm": 1.05, "streaming_norm": 1.15}
COLUMNS = ("norm", "shape", "dtype", "backend", "threads", "us", "p20", "p80", "timer", "x batch_norm", "bar", "check")


def bar(norm: str, task: Task) -> float | None:
    """The most that it may take, in units of our batch norm; a row of (N, C) leaves a scan more to do than an image."""
    return (1.25 if len(task.extents) > 2 else 2.0) if norm == "online_norm" else BARS.get(norm)


def layers(task: Task, backend: str) -> dict[str, torch.nn.Module]:
    """A layer of each norm for inputs of that task, in training; parameters are float32 beside 16 bits."""
    rank = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}[len(task.extents)]
    dtype = task.dtype if task.dtype.itemsize > 2 else torch.float32
    made = {"num_features": task.extents[1], "device": task.device, "dtype": dtype}
    ours = {norm: getattr(nk, name + rank)(**made, backend=backend) for norm, name in CLASSES.items()}
    return ours | {PEER: getattr(torch.nn, "BatchNorm" + rank)(**made)}


def step(layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor) -> Callable:
    leaves = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x), leaves, dy)


def compare(task: Task, backend: str, threads: int, seconds: float) -> list[dict]:
    """A row for each norm; ours are also checked against float64."""
    torch.set_num_threads(threads)
    pairs = [(s.tensors["input"].requires_grad_(), s.cotangents[0]) for s in task.sets()]
    calls = {norm: [step(layer, *pair) for pair in pairs] for norm, layer in layers(task, backend).items()}
    timings, rows = measure(calls, task.device, seconds), []
    for norm, timing in timings.items():
        worst = Task(norm, task.shape, task.dtype, task.device).worst(backend) if norm in CLASSES else 0.0
        check = "ok" if worst <= 1 else f"OFF {worst:.3g}x"
        name, times = backend if norm in CLASSES else "torch", (timing.us, timing.p20, timing.p80, timing.timer)
        found = norm, task.shape, str(task.dtype)[6:], name, threads, *times, timing.us / timings[BASE].us
        rows.append(dict(zip(COLUMNS, (*found, bar(norm, task), check), strict=True)))
    return rows


def passed(row: dict) -> bool:
    return row["check"] == "ok" and (row["bar"] is None or row["x batch_norm"] <= row["bar"])


def table(rows: list[dict]) -> Table:
    """One section for each input; red: off, or beyond its bar."""
    out = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in COLUMNS:
        out.add_column(name, justify="right" if name in ("us", "p20", "p80", "x batch_norm", "bar") else "left")
    for row in rows:
        if row["norm"] == BASE:
            out.add_section()
        values = ("" if v is None else f"{v:.2f}" if name == "x batch_norm" else _text(v) for name, v in row.items())
        out.add_row(*values, style=None if passed(row) else "red")
    return out


def _text(value) -> str:
    return f"{value:.0f}" if isinstance(value, float) and value >= 100 else str(value)


def write_csv(path: Path, rows: list[dict], about: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about])
        writer.writeheader()
        writer.writerows(
            {k: round(v, 3) if isinstance(v, float) else v for k, v in (row | about).items()} for row in rows
        )


def main() -> int:
    keep_memory_mapped()
    arguments = parser("stream", __doc__)
    add = arguments.add_argument
    add("--backend", nargs="+", help="of ours; default: all that are fused and run")
    add("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    add("--shape", nargs="+", help="32x64x32x32, 32x64x32x32:nhwc, 128x4096")
    add("--threads", nargs="+", type=int, default=[1], help="of the CPU")
    add("--seconds", type=float, default=0.5, help="of timing for each norm and shape")
    add("--csv", type=Path, metavar="FILE")
    args = arguments.parse_args()
    out, about = console(), machine.describe(args.device, args.threads, machine.copy_gb_s(args.device))
    out.print("# " + machine.line(about), highlight=False, soft_wrap=True)
    runs = args.backend or [name for name in available(BASE, args.device) if name in NAMES]
    listed, rows = shapes.STREAMS[args.device], []
    with own_stream(args.device):
        for threads, dtype, shape, backend in product(args.threads, args.dtype, args.shape or listed, runs):
            task = Task(BASE, shape, getattr(torch, dtype), args.device)
            rows += compare(task, backend, threads, args.seconds)
            if args.csv:
                write_csv(args.csv, rows, about)
    out.print(table(rows))
    return int(any(row["check"] != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
