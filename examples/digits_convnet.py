"""A small residual conv net on real digits with batch, group or instance norm: ours, and as its torch.nn twin.

Both start from the same weights and see the same batches; ours take in ReLU and the skip connection.
"""

import sys
from functools import partial

import torch
from _common import GREY, RED, console, options, save, tidy
from _convnet import ConvNet, Data, Run, Twin, train
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits

import normkernels as nk

NORMS = {
    "batch": lambda library, channels, **extras: library.BatchNorm2d(channels, **extras),
    "group": lambda library, channels, **extras: library.GroupNorm(8, channels, **extras),
    "instance": lambda library, channels, **extras: library.InstanceNorm2d(channels, affine=True, **extras),
}
TRAINED = 1437  # four fifths of the images
START = 10  # steps: later, training has magnified what rounding differs by
AGREEMENT = 0.02  # of the test images

Results = dict[str, list[list[Run]]]


def compare(seeds: int, device: str, backend: str | None) -> Results:
    """[ours, twin] for each seed of each norm."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32, device=device)[:, None] / 16
    labels, results = torch.tensor(digits.target, device=device), {name: [] for name in NORMS}
    training, test = Data(images[:TRAINED], labels[:TRAINED]), Data(images[TRAINED:], labels[TRAINED:])
    turns = [(name, seed) for name in NORMS for seed in range(seeds)]
    for name, seed in track(turns, "training", console=console, transient=True):
        ours = ConvNet(partial(NORMS[name], nk, activation="relu", backend=backend), seed)
        twin = ConvNet(lambda channels, norm=NORMS[name]: Twin(norm(torch.nn, channels)), seed)
        results[name].append(train([model.to(device) for model in (ours, twin)], training, test, seed))
    return results


def agree(runs: list[Run]) -> bool:
    ours, twin = runs
    return abs(ours.accuracy - twin.accuracy) <= AGREEMENT


def report(results: Results) -> None:
    """A row for each norm and seed; each pair of numbers is ours and the twin's."""
    title = (
        f"Ours, torch.nn; accuracies agree within {100 * AGREEMENT:.0f} points\n"
        f"|Δ loss|: the largest of the first {START} steps, of all steps"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("norm", "seed", "% right", "|Δ loss|", "ms per step", "agree"):
        table.add_column(column, justify="left" if column == "norm" else "right", no_wrap=True)
    for name, found in results.items():
        for seed, runs in enumerate(found):
            apart = (runs[0].losses - runs[1].losses).abs()
            right = ", ".join(f"{100 * run.accuracy:.1f}" for run in runs)
            times = ", ".join(f"{1e3 * run.seconds:.2f}" for run in runs)
            verdict = "[green]yes[/]" if agree(runs) else "[red]no[/]"
            table.add_row(name, str(seed), right, f"{apart[:START].max():.0e}, {apart.max():.0e}", times, verdict)
    console.print(table)


def plot(results: Results) -> Figure:
    """The losses of the first seed, one panel for each norm, the twin's on top of ours."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True)
    for axes, (name, found) in zip(panels, results.items(), strict=True):
        ours, twin = found[0]
        axes.plot(ours.losses, color=RED, linewidth=3, label=f"normkernels: {100 * ours.accuracy:.1f} % right")
        axes.plot(twin.losses, color=GREY, linewidth=1, label=f"torch.nn: {100 * twin.accuracy:.1f} % right")
        axes.set(title=f"{name} norm", xlabel="step", yscale="log")
        axes.legend(frameon=False)
        tidy(axes)
    panels[0].set_ylabel("cross-entropy")
    figure.suptitle("Residual conv net on 8x8 digits, the same weights and batches", fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__)
    results = compare(1 if chosen.quick else 3, chosen.device, chosen.backend)
    report(results)
    save(plot(results), chosen.out, "digits_convnet.png")
    return 0 if all(agree(runs) for found in results.values() for runs in found) else 1


if __name__ == "__main__":
    sys.exit(main())
