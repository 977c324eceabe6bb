"""The figures of the NormProp paper, and its recipe part by part, on a small Network in Network, at the paper's rates.

Figure 1: data normalised as a whole or batch by batch; 2: the mean of what enters each layer; 3: convergence beside
batch norm; 4: batches of 1 to 100 at equal epochs. Images are averaged down to 16x16, an eighth of the paper's filters
is left; the rate is halved three times. normprop_rates.py gives every arm the rate that is best for it.
"""

import argparse
import sys
from functools import partial
from itertools import pairwise

from _common import experiment, images, main, options
from _console import table
from _figures import ACCURACY, LAYERS, UNIT, Setting, learn, numbers
from _jobs import Job, run
from _nin import NONE, OURS, RATE, RATE_WITHOUT_NORM, scaled
from _plots import PAPER, legend, panels, whole
from _results import Number, Results
from matplotlib import colormaps
from matplotlib.figure import Figure

NAME = "normprop_figures"
BASE, BATCH_DATA, BN, PLAIN = "NormProp, 50", "NormProp, batch data norm, 50", "batch norm, 50", "no norm, 50"
SETTINGS = {
    BASE: Setting(), BATCH_DATA: Setting(mode="batch"),
    "NormProp, 100": Setting(batch=100), "NormProp, batch data norm, 100": Setting(mode="batch", batch=100),
    BN: Setting(OURS), PLAIN: Setting(NONE),
    "NormProp, 10": Setting(batch=10), "NormProp, 1": Setting(batch=1),
    "never halved": Setting(halvings=0), "not shuffled": Setting(shuffled=False), "no weight decay": Setting(decay=0),
    "gain 1": Setting(gain=1.0), "gain 1, twice the rate": Setting(gain=1.0, rate=2), "twice the rate": Setting(rate=2),
    "no momentum": Setting(momentum=0.0, rate=10), "dropout": Setting(dropout=0.5),
    "batch 100 at the rate of 50": Setting(batch=100, rate=0.05 / 0.08),
}  # fmt: skip
FOLLOWED = (BASE, BN, PLAIN)  # whose layers' inputs are looked at
PANELS = {
    "1: normalising the data": (BASE, BATCH_DATA, "NormProp, 100", "NormProp, batch data norm, 100"),
    "3: convergence": (BASE, BN, PLAIN),
    "4: batch size": ("NormProp, 1", "NormProp, 10", BASE, "NormProp, 100"),
}
BEST = 90.35  # figure 1, on CIFAR-10
DISTANCE = {BASE: 0.19, BN: 0.33}  # figure 2: average distance from 0


def measure(chosen: argparse.Namespace) -> list[Number]:
    data, jobs = images(chosen), {}
    for name, s in SETTINGS.items():
        rate = RATE_WITHOUT_NORM if s.variant == NONE else scaled(chosen.rate, s.batch) * s.rate
        for seed in chosen.seeds:
            start = partial(learn, s, data, rate, chosen.epochs, seed, name in FOLLOWED)
            jobs[name, seed] = Job(chosen.epochs * (len(data.labels) // s.batch), start)
    return numbers(data, run(jobs))


def worst_drop(found: Results, name: str) -> float:
    """The most points that any seed lost from one epoch to the next; 0 where none lost any."""
    epochs = [found.values(name, ACCURACY, at) for at in found.at(name, ACCURACY)]
    pairs = pairwise(epochs)
    return max([0.0, *(a - b for before, after in pairs for a, b in zip(before, after, strict=True))])


def report(found: Results) -> None:
    rows = [[name, found.show(name, ACCURACY, at=1), found.show(name, ACCURACY), f"{worst_drop(found, name):.1f}"]
            for name in SETTINGS]  # fmt: skip
    table(f"{found.data}: % right", ["setting, batch", "epoch 1", "at the end", "worst drop"], rows)


def convergence(found: Results) -> Figure:
    """Means over the seeds; thin, every seed."""
    figure, axes = panels(3, width=5, sharey=True)
    names = list(dict.fromkeys(name for each in PANELS.values() for name in each))
    for each, (title, shown) in zip(axes, PANELS.items(), strict=True):
        for name in shown:
            epochs, colour = found.at(name, ACCURACY), f"C{names.index(name)}"
            each.plot(epochs, found.curve(name, ACCURACY), "o-", color=colour, label=name)
            each.plot(epochs, [found.values(name, ACCURACY, at) for at in epochs], color=colour, linewidth=0.8)
        each.set_title(f"Figure {title}")
    axes[0].axhline(BEST, **PAPER, label=f"the paper's best, CIFAR-10: {BEST}")
    axes[0].set_ylabel("% of the test right")
    axes[0].set_ylim(0, 100)
    whole(axes)
    legend(figure, 3)
    figure.suptitle(f"{found.data}; thin: each seed")
    return figure


def shift(found: Results) -> Figure:
    """The mean of one unit that enters each layer, of the first seed; dashed, the paper's average distance from 0."""
    figure, axes = panels(3, width=5)
    for each, name in zip(axes, FOLLOWED, strict=True):
        for layer in LAYERS:
            quantity = UNIT.format(layer)
            curve = [found.values(name, quantity, at)[0] for at in found.at(name, quantity)]
            colour = colormaps["viridis"]((layer - 2) / len(LAYERS))
            each.plot(range(1, len(curve) + 1), curve, color=colour, label=f"input of layer {layer}")
        for sign in (1, -1) if name in DISTANCE else ():
            each.axhline(sign * DISTANCE[name], **PAPER, label="the paper's average distance from 0")
        each.set_title(f"{name}" + (f" (dashed: ±{DISTANCE[name]})" if name in DISTANCE else ""))
    axes[0].set_ylabel("mean over the test images")
    low, high = (f(each.get_ylim()[i] for each in axes[:2]) for i, f in enumerate((min, max)))
    for each in axes[:2]:
        each.set_ylim(low, high)
    whole(axes)
    legend(figure, 5)
    figure.suptitle("Figure 2: the mean of one unit, chosen at random, of what enters each layer")
    return figure


def plots(found: Results) -> dict[str, Figure]:
    return {f"{NAME}.png": convergence(found), "normprop_shift.png": shift(found)}


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__, experiment(epochs=10, rate=RATE, images=2000)), measure, report, plots))
