"""``python -m bench.adoption_steps``: steps of real models with torch's norms and with ours, eager and compiled.

The models of ``bench.zoo``, ours by ``nk.convert`` with what it fuses, float32, one thread, a process for each model.
Training is forward and backward, inference a forward without gradients; torch, a copy of it (*again*) and ours take
turns, and a ratio is the median of those of the rounds. *composed* is ours with ``use_backend("reference")``: ordinary
torch ops, which a compiler fuses with what is around them. Each is called by a function of its own, for what is
compiled belongs to a function's code: of modules that share it, the last would evaluate the others' guards first.
Memory is the peak beyond what the model holds, by torch's profiler.
Writes bench/results/adoption_steps.csv and docs/adoption.md. Best on an idle machine, one core: ``taskset -c 1``.
"""

import argparse
import contextlib
import copy
import csv
import io
import os
import statistics
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import normkernels as nk

from .__main__ import MALLOC
from .machine import describe
from .memory import usage
from .zoo import Model, models

FILE = Path(__file__).parents[1] / "bench/results/adoption_steps.csv"
FIELDS = ("model", "mode", "way", "ms", "again", "ours", "composed", "mb", "ours_mb", "rounds", "cpu", "torch")
WARM_UP = 4  # rounds: compilation, calls that are recorded
Step = Callable[[], object]


def called(module: torch.nn.Module) -> Callable[..., Any]:
    """A function that calls it, with a code object of its own."""

    def run(*args: Any) -> Any:
        return module(*args)

    return types.FunctionType(run.__code__.replace(), run.__globals__, "run", None, run.__closure__)


def step(model: Model, module: torch.nn.Module, training: bool, compiled: bool) -> Step:
    """What is timed."""
    run = torch.compile(called(module)) if compiled else module

    def train() -> None:
        module.zero_grad()
        model(run).square().mean().backward()

    def infer() -> None:
        with torch.no_grad():
            model(run)

    return train if training else infer


def composed(call: Step) -> Step:
    """The same, with norms made of ordinary torch ops."""

    def run() -> None:
        with nk.use_backend("reference"):
            call()

    return run


def taken_in_turns(calls: list[Step], rounds: int) -> list[list[float]]:
    """Seconds of the processor that each took, round by round: other processes spend their own.

    Each is called twice in a row, and the second time counts: the first finds other weights in the cache.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(WARM_UP + rounds):
        for call, spent in zip(calls, times, strict=True):
            call()
            start = time.process_time()
            call()
            spent.append(time.process_time() - start)
    return [spent[WARM_UP:] for spent in times]


def peak(call: Step) -> float:
    """MB beyond what is there before."""
    return max(usage(call)) / 2**20


def rows(model: Model, rounds: int) -> list[dict[str, str]]:
    """Of one model, each mode both ways."""
    plain, ours = model.module, copy.deepcopy(model.module)
    with contextlib.redirect_stdout(io.StringIO()):
        nk.convert(ours)
    cpu = describe("cpu", [1], 0.0)["cpu"]
    found = []
    for training, way in ((t, w) for t in (True, False) for w in ("eager", "compiled")):
        torch._dynamo.reset()
        modules = [m.train(training) for m in (plain, copy.deepcopy(plain), ours, copy.deepcopy(ours))]
        first, again, mine, last = (step(model, m, training, way == "compiled") for m in modules)
        torchs, *others = taken_in_turns([first, again, mine, composed(last)], rounds)
        ratios = [statistics.median(map(float.__truediv__, torchs, other)) for other in others]
        measured = [
            f"{1000 * statistics.median(torchs):.2f}",
            *(f"{r:.3f}" for r in ratios),
            *(f"{peak(s):.2f}" for s in (first, mine)),
        ]
        mode = "training" if training else "inference"
        values = model.name, mode, way, *measured, str(rounds), cpu, torch.__version__
        found.append(dict(zip(FIELDS, values, strict=True)))
    return found


def read() -> list[dict[str, str]]:
    if not FILE.exists():
        return []
    with FILE.open() as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, str]], to) -> None:
    writer = csv.DictWriter(to, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def in_a_process(name: str, rounds: int) -> list[dict[str, str]]:
    command = [sys.executable, "-m", "bench.adoption_steps", "--model", name, "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | MALLOC)
    return list(csv.DictReader(done.stdout.splitlines()))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.adoption_steps", description=__doc__)
    parser.add_argument("--all", action="store_true", help="models that have rows too")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--model", help="this one alone, here; its rows are printed and nothing is written")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    if chosen.model:
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        write(rows(next(m for m in models() if m.name == chosen.model), chosen.rounds), sys.stdout)
        return 0
    found = [] if chosen.all else read()
    for name in [m.name for m in models()]:
        if name in [row["model"] for row in found]:
            continue
        found += in_a_process(name, chosen.rounds)
        for row in found[-4:]:
            sys.stdout.write(", ".join(row.values()) + "\n")
        sys.stdout.flush()
        with FILE.open("w", newline="") as file:
            write(found, file)
    from .adoption import main as write_page

    return write_page(["--page"])


if __name__ == "__main__":
    sys.exit(main())
