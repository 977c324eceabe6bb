"""What a training step of each variant of the Network in Network takes, and how much of it are convolutions."""

import argparse
import time
from collections.abc import Generator
from functools import partial
from statistics import median

import torch
from _console import table
from _jobs import Job, run
from _nin import NONE, TORCH, VARIANTS, network, optimizer
from _results import Number, Results
from _training import step
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import normkernels as nk

NAME, STEP, REST = "nin_time", "ms a step", "ms without convolutions"
BATCH, REPEATS = 32, 15
CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


class Convolutions(TorchDispatchMode):
    """Adds up the seconds of every convolution and its backward."""

    seconds = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = time.process_time()
        found = func(*args, **(kwargs or {}))
        self.seconds += (time.process_time() - start) * (func in CONVOLUTIONS)
        return found


def step_times(width: float, as_printed: bool, repeats: int) -> Generator[None, None, dict[str, list[tuple]]]:
    """Milliseconds of a step, and of the convolutions in another one, the variants taking turns."""
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    models: dict[str, nn.Module] = {variant: network(variant, width, as_printed) for variant in VARIANTS}
    optimizers = {variant: optimizer(model, 0.01) for variant, model in models.items()}
    times: dict[str, list[tuple]] = {variant: [] for variant in VARIANTS}

    def train(variant: str) -> None:
        step(models[variant], optimizers[variant], images, labels)
        nk.project_unit_norm_(models[variant])

    for repeat in range(repeats + 1):
        for variant in models:
            start = time.process_time()  # of one thread: what else runs here does not count
            train(variant)
            whole = time.process_time() - start
            with Convolutions() as convolutions:  # apart, for watching takes time of its own
                train(variant)
            if repeat:  # the first one warms up
                times[variant].append((1e3 * whole, 1e3 * (whole - convolutions.seconds)))
        yield
    return times


def measure(chosen: argparse.Namespace) -> list[Number]:
    """Medians over the turns."""
    repeats = 3 if chosen.quick else REPEATS
    job = Job(repeats + 1, partial(step_times, chosen.width, chosen.as_printed, repeats))
    (times,) = run({NAME: job}, "timing").values()
    lines, data = [], f"{chosen.width:g} of the width, batches of {BATCH}"
    for variant, found in times.items():
        for i, quantity in enumerate((STEP, REST)):
            lines.append(Number(data, variant, quantity, median(each[i] for each in found)))
    return lines


def report(found: Results) -> None:
    rows = []
    for variant in VARIANTS:
        whole, rest = (found.mean(variant, quantity) for quantity in (STEP, REST))
        ratios = [whole / found.mean(base, STEP) for base in (TORCH, NONE)]
        rows.append([variant, *(f"{value:.1f}" for value in (whole, rest)), *(f"{ratio:.3f}" for ratio in ratios)])
    table(f"A training step, {found.data}, one thread", ["", STEP, REST, f"step / {TORCH}", f"step / {NONE}"], rows)
