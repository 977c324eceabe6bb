"""What a training step of each variant of the Network in Network takes, and how much of it are convolutions."""

import time
from pathlib import Path
from statistics import median

import torch
from _common import console
from _nin import NONE, TORCH, VARIANTS, network, optimizer, step
from _results import Number, write
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

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


def step_times(
    width: float, as_printed: bool, backend: str | None, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of a step, and of the convolutions in another one, the variants taking turns."""
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    models: dict[str, nn.Module] = {variant: network(variant, width, as_printed, backend) for variant in VARIANTS}
    optimizers = {variant: optimizer(model, 0.01) for variant, model in models.items()}
    times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for repeat in track(range(repeats + 1), "timing", console=console, transient=True):
        for variant, model in models.items():
            start = time.process_time()  # of one thread: what else runs here does not count
            step(model, optimizers[variant], images, labels)
            whole = time.process_time() - start
            with Convolutions() as convolutions:  # apart, for watching takes time of its own
                step(model, optimizers[variant], images, labels)
            if repeat:  # the first one warms up
                times[variant].append((1e3 * whole, 1e3 * convolutions.seconds))
    return times


def report(times: dict[str, list[tuple[float, float]]], width: float, folder: Path) -> None:
    """Medians, which go to a file too; ratios are medians over the turns."""
    title = (
        f"A training step, batch {BATCH}, {width:g} of the width, one thread: medians of {len(times[NONE])} turns, ms"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("variant")
    for column in ("step", "convolutions", "the rest", f"step / {TORCH}", f"step / {NONE}"):
        table.add_column(column, justify="right", no_wrap=True)
    for variant, found in times.items():
        whole, inside = (median(values) for values in zip(*found, strict=True))
        rest = median(step - inside for step, inside in found)
        ratios = (
            median(ours[0] / other[0] for ours, other in zip(found, times[base], strict=True)) for base in (TORCH, NONE)
        )
        row = [f"{value:.1f}" for value in (whole, inside, rest)] + [f"{ratio:.3f}" for ratio in ratios]
        table.add_row(variant, *row)
    console.print(table)
    lines = []
    for variant, found in times.items():
        data = f"{width:g} of the width, batches of {BATCH}"
        lines.append(Number(data, variant, "ms a step", median(whole for whole, _ in found)))
        lines.append(Number(data, variant, "ms without convolutions", median(a - b for a, b in found)))
    console.print(f"results: {write(lines, folder, 'nin_time')}")
