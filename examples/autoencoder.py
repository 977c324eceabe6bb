"""Layer norm in a ReLU auto-encoder: 1,992 inputs, 128 hidden units, two epochs, in batches and as a stream."""

import hashlib
import sys
import time
from itertools import islice
from statistics import median

import numpy as np
import torch
from _autoencoder import HIDDEN, AutoEncoder, BiasReLU, Setting, compare, fused, steps
from _autoencoder_report import plot, report
from _common import console, options, save
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from normkernels._backends.reference.layer_norm import layer_norm_ref

BATCHES = Setting(batch=32, lr=0.1, seeds=(0, 1, 2, 3, 4), ratios=(0.65, 0.60), growth=1.2)
STREAM = Setting(batch=1, lr=0.003, seeds=(0, 1), ratios=(0.60, 0.50))
AGREEMENT = 1e-9


class Reference(torch.nn.LayerNorm):
    """Layer norm and ReLU as the formula says, differentiated by autograd."""

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm_ref(input, None, self.weight, self.bias, self.eps, 0.0, "relu", 0.0)[0]


def sparse9() -> Tensor:
    """2,000 bags of words over 1,992 words: 8 Zipf-drawn words of one of 40 topics, and one word of noise."""
    generator = np.random.default_rng(0)
    topics = [generator.choice(1992, 60, replace=False) for _ in range(40)]
    zipf = 1 / np.arange(1, 61)
    zipf /= zipf.sum()
    data = np.zeros((2000, 1992), np.float32)
    for row in data:
        topic = topics[generator.choice(40, 1, replace=False)[0]]
        row[generator.choice(topic, 8, replace=False, p=zipf)] = 1
        row[generator.integers(0, 1992, 1)] = 1
    digest = hashlib.sha256(data.astype(np.uint8).tobytes()).hexdigest()[:16]
    if digest != "79f11f808a5df45d":
        raise RuntimeError(f"sparse9: the data must hash to 79f11f808a5df45d, got {digest}; numpy's streams changed")
    return torch.from_numpy(data)


def disagreement(data: Tensor, backend: str | None) -> float:
    """The largest relative difference between the first 50 costs of the fused block and of the formula, in float64."""
    losses = []
    for block in (fused(backend), Reference(HIDDEN)):
        model = AutoEncoder(data.shape[1], block, seed=0).to(data.device, torch.float64)
        run = islice(steps(model, data.double(), BATCHES, seed=0, epochs=1), 50)
        losses.append(torch.stack([loss for loss, _ in run]))
    return ((losses[0] - losses[1]).abs() / losses[1]).max().item()


def step_times(data: Tensor, setting: Setting, backend: str | None, repeats: int = 300) -> dict[str, float]:
    """Median seconds per training step of each block, the blocks taking turns."""
    blocks = {
        "plain (bias + ReLU)": BiasReLU(),
        "torch.nn.LayerNorm + ReLU": torch.nn.Sequential(torch.nn.LayerNorm(HIDDEN), torch.nn.ReLU()),
        "normkernels.LayerNorm": fused(backend),
    }
    runs, times = {}, {name: [] for name in blocks}
    for name, block in blocks.items():
        model = AutoEncoder(data.shape[1], block, seed=0).to(data.device)
        runs[name] = steps(model, data, setting, seed=0, epochs=repeats)
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            next(run)[0].item()  # waits for the GPU
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def report_times(data: Tensor, settings: list[Setting], backend: str | None) -> None:
    table = Table(
        title=f"Milliseconds per training step on {data.device}, median", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("block")
    columns = [step_times(data, setting, backend) for setting in settings]
    for setting in settings:
        table.add_column(str(setting), justify="right")
    for name in columns[0]:
        table.add_row(name, *(f"{1e3 * column[name]:.3f}" for column in columns))
    console.print(table)


def main() -> int:
    chosen = options(__doc__)
    settings = [BATCHES, STREAM]
    if chosen.quick:
        settings = [Setting(s.batch, s.lr, s.seeds[:1], s.ratios, s.growth) for s in settings]
    data = sparse9().to(chosen.device)
    results = compare(data, settings, chosen.backend)
    passed = report(results)
    gap = disagreement(data, chosen.backend)
    agree = gap <= AGREEMENT
    console.print(
        f"fused and formula in float64, first 50 costs: {gap:.1e} relative (bar {AGREEMENT:.0e}) "
        + ("[green]met[/]" if agree else "[red]not met[/]")
    )
    report_times(data, settings, chosen.backend)
    save(plot(results, "Tied ReLU auto-encoder, 1,992-128-1,992, bags of words"), chosen.out, "autoencoder.png")
    return 0 if passed and agree else 1


if __name__ == "__main__":
    sys.exit(main())
