"""``python -m bench.adoption_steps``: steps of real models with torch's norms and with ours, eager and compiled.

The models of ``bench.zoo``, ours by ``nk.convert`` with what it fuses, float32, one thread. Training is forward and
backward, inference a forward without gradients. Torch, a copy of it (*again*) and ours take turns (``bench.turns``). A
ratio is the median of those of the rounds: *again* of torch to its copy, the others of the mean of these two.
*composed* is ours with ``use_backend("reference")``: ordinary torch ops, which a compiler fuses with what is around
them. Memory is the peak beyond what the model holds, by torch's profiler. A process for each row: in one that has
compiled other things guards find no place together, and a step is slower by hundredths, whichever they are of.
Writes bench/results/adoption_steps.csv and docs/adoption.md. Best on an idle machine, one core: ``taskset -c 1``.
"""

import argparse
import contextlib
import copy
import csv
import io
import itertools
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

import normkernels as nk

from .__main__ import MALLOC
from .machine import describe
from .memory import usage
from .turns import Step, called, taken
from .zoo import Model, models

FILE = Path(__file__).parents[1] / "bench/results/adoption_steps.csv"
FIELDS = ("model", "mode", "way", "ms", "again", "ours", "composed", "mb", "ours_mb", "rounds", "cpu", "torch")


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


def ratios(times: Sequence[Sequence[float]]) -> list[float]:
    """*again*, *ours* and *composed*, of the seconds of torch, the others and torch's copy, round by round."""
    torchs, *others, again = times
    mean = [statistics.mean(pair) for pair in zip(torchs, again, strict=True)]
    pairs = [(torchs, again), *((mean, other) for other in others)]
    return [statistics.median(map(float.__truediv__, *pair)) for pair in pairs]


def peak(call: Step) -> float:
    """MB beyond what is there before."""
    return max(usage(call)) / 2**20


def row(model: Model, mode: str, way: str, seconds: float) -> dict[str, str]:
    """Of one model in one mode, one way."""
    plain, ours = model.module.train(mode == "training"), copy.deepcopy(model.module)
    with contextlib.redirect_stdout(io.StringIO()):
        nk.convert(ours)
    modules = [copy.deepcopy(m) for m in (plain, plain, ours, ours, plain, plain)]
    early, first, mine, last, again, late = (step(model, m, mode == "training", way == "compiled") for m in modules)
    timed = [first, mine, composed(last), again]
    for call in (early, *timed, late):  # guards of what is compiled first are slower by a hundredth, of the last faster
        call()
    times = taken(modules[1:-1], timed, seconds)
    measured = [
        f"{1000 * statistics.median(times[0]):.2f}",
        *(f"{r:.3f}" for r in ratios(times)),
        *(f"{peak(call):.2f}" for call in (first, mine)),
    ]
    cpu = describe("cpu", [1], 0.0)["cpu"]
    values = model.name, mode, way, *measured, str(len(times[0])), cpu, torch.__version__
    return dict(zip(FIELDS, values, strict=True))


def read() -> list[dict[str, str]]:
    if not FILE.exists():
        return []
    with FILE.open() as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, str]], to) -> None:
    writer = csv.DictWriter(to, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def in_a_process(name: str, mode: str, way: str, seconds: float) -> dict[str, str]:
    command = [sys.executable, "-m", "bench.adoption_steps", "--only", name, mode, way, "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | MALLOC)
    return next(csv.DictReader(done.stdout.splitlines()))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.adoption_steps", description=__doc__)
    parser.add_argument("--all", action="store_true", help="models that have rows too")
    parser.add_argument("--seconds", type=float, default=12, help="of timing for each mode and way")
    only = parser.add_argument("--only", nargs=3, metavar=("MODEL", "MODE", "WAY"))
    only.help = "this row alone, here; it is printed and nothing is written"
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    if chosen.only:
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        name, mode, way = chosen.only
        write([row(next(m for m in models() if m.name == name), mode, way, chosen.seconds)], sys.stdout)
        return 0
    found = [] if chosen.all else read()
    for name in [m.name for m in models()]:
        if name in [row["model"] for row in found]:
            continue
        for mode, way in itertools.product(("training", "inference"), ("eager", "compiled")):
            found.append(in_a_process(name, mode, way, chosen.seconds))
            sys.stdout.write(", ".join(found[-1].values()) + "\n")
            sys.stdout.flush()
        with FILE.open("w", newline="") as file:
            write(found, file)
    from .adoption import main as write_page

    return write_page(["--page"])


if __name__ == "__main__":
    sys.exit(main())
