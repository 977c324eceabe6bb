"""The figures of the NormProp paper, and its recipe part by part, on a small Network in Network.

Figure 1: data normalised as a whole or batch by batch; 2: the mean of what enters each layer; 3: convergence beside
batch norm; 4: batches of 1 to 100 at equal epochs. Images are averaged down to 16x16, an eighth of the paper's filters
is left; the rate is halved three times.
"""

import sys
from functools import partial
from itertools import pairwise

import torch
from _common import Job, console, experiment, images, options, run, save, table, tidy
from _data import Images
from _figures import ACCURACY, BASE, BATCH_DATA, BN, FOLLOWED, LOSS, PLAIN, SETTINGS, Run, learn
from _results import Number, Results, write
from matplotlib import colormaps
from matplotlib.figure import Figure

NAME = "normprop_figures"
MEAN, DRIFT = "|mean| entering layer {}", "change of the mean entering layer {}"
PANELS = {
    "1: normalising the data": (BASE, BATCH_DATA, "NormProp, 100", "NormProp, batch data norm, 100"),
    "3: convergence": (BASE, BN, PLAIN),
    "4: batch size": ("NormProp, 1", "NormProp, 10", BASE, "NormProp, 100"),
}
PAPER = {BASE: 0.19, BN: 0.33}  # figure 2: average distance from 0


def numbers(data: Images, found: dict[tuple[str, int], Run]) -> list[Number]:
    """``at`` is the epoch."""
    lines = []
    for (name, seed), got in found.items():
        for quantity, curve in ((ACCURACY, got.accuracy), (LOSS, got.loss)):
            lines += [Number(data.name, name, quantity, v, seed, epoch) for epoch, v in enumerate(curve, 1)]
        for epoch, means in enumerate(got.means, 1):
            for layer, mean in enumerate(means, 2):
                lines.append(Number(data.name, name, MEAN.format(layer), mean.abs().mean().item(), seed, epoch))
                if epoch > 1:
                    change = (mean - got.means[epoch - 2][layer - 2]).abs().mean().item()
                    lines.append(Number(data.name, name, DRIFT.format(layer), change, seed, epoch))
    return lines


def worst_drop(found: Results, name: str) -> float:
    """The most points that any seed lost from one epoch to the next."""
    epochs = [found.values(name, ACCURACY, at) for at in found.at(name, ACCURACY)]
    pairs = pairwise(epochs)
    return max((a - b for before, after in pairs for a, b in zip(before, after, strict=True)), default=0.0)


def convergence(found: Results) -> Figure:
    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 3, sharey=True), PANELS.items(), strict=True):
        for name in names:
            epochs = found.at(name, ACCURACY)
            values = torch.tensor([found.values(name, ACCURACY, at) for at in epochs])
            spread = values.std(1) if values.shape[1] > 1 else torch.zeros(len(epochs))
            axes.errorbar(epochs, values.mean(1), spread, capsize=2, linewidth=1.6, label=name)
        axes.set(title=f"Figure {title}", xlabel="epoch")
        axes.legend(frameon=False, fontsize="small", loc="lower right")
        tidy(axes)
    figure.axes[0].set_ylabel("% of the test right")
    figure.suptitle(f"{found.data}: mean and deviation over seeds", fontsize="medium")
    return figure


def shift(found: dict[tuple[str, int], Run], seed: int) -> Figure:
    """The mean of one unit that enters each layer, epoch by epoch; dashed, the paper's average distance from 0."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), FOLLOWED, strict=True):
        means = found[name, seed].means
        for layer in range(len(means[0])):
            unit = torch.randint(len(means[0][layer]), (), generator=torch.Generator().manual_seed(layer)).item()
            colour = colormaps["viridis"](layer / len(means[0]))
            curve = [m[layer][unit].item() for m in means]
            axes.plot(range(1, len(means) + 1), curve, color=colour, label=str(layer + 2))
        for value in (PAPER[name], -PAPER[name]) if name in PAPER else ():
            axes.axhline(value, color="black", linewidth=1, linestyle="--")
        axes.set(title=name, xlabel="epoch")
        tidy(axes)
    figure.axes[0].set_ylabel("mean over the test images")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="input of layer", frameon=False, loc="outside right center")
    figure.suptitle("Figure 2: one unit of each layer (dashed: the paper's average distance from 0)", fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__, experiment(epochs=10, rate=0.05, images=2000))
    data = images(chosen)
    jobs = {}
    for name, setting in SETTINGS.items():
        for seed in chosen.seeds:
            start = partial(learn, name, data, chosen.rate, chosen.epochs, seed)
            jobs[name, seed] = Job(chosen.epochs * (len(data.labels) // setting.batch), start)
    runs = run(jobs)
    lines = numbers(data, runs)
    found = Results(lines)
    rows = [[name, found.show(name, ACCURACY, at=1), found.show(name, ACCURACY), f"{worst_drop(found, name):.1f}"]
            for name in SETTINGS]  # fmt: skip
    table(f"{data.name}: % right", ["setting, batch", "epoch 1", "at the end", "worst drop"], rows)
    console.print(f"results: {write(lines, chosen.out, NAME)}")
    save(convergence(found), chosen.out, f"{NAME}.png")
    save(shift(runs, chosen.seeds[0]), chosen.out, "normprop_shift.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
