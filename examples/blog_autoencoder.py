"""The blog's auto-encoder, plain and with layer norm: cost and length of the weights of each epoch, and neighbours.

On bags of words, 1,992 units as there; and on images, whose nearest neighbours by code can be judged by their class.
"""

import sys
from collections.abc import Generator
from functools import partial

import torch
from _autoencoder import AutoEncoder, BiasReLU, Setting, fused, steps
from _common import GREY, RED, Job, console, experiment, images, options, run, save, table, tidy
from _results import Number, Results, write
from autoencoder import BATCHES, sparse9
from matplotlib.figure import Figure
from torch import Tensor

NAME = "blog_autoencoder"
PLAIN, LAYER, PIXELS = "plain", "layer norm", "pixels themselves"
COST, LENGTH, SHARE = "cost", "|W|", "% of the 5 nearest of its class"
BAGS = "bags of words"
NEAREST = 5
BLOG = {  # its two epochs
    COST: {PLAIN: (2.6762, 1.5721), LAYER: (1.4755, 0.8076)},
    LENGTH: {PLAIN: (20.89, 21.36), LAYER: (27.84, 31.24)},
}


def learn(arm: str, x: Tensor, setting: Setting, epochs: int, seed: int) -> Generator[None, None, tuple]:
    """Costs and lengths of the epochs, and the model."""
    model = AutoEncoder(x.shape[1], BiasReLU() if arm == PLAIN else fused(), seed).to(x.device)
    costs, lengths, total, seen = [], [], 0.0, 0
    for loss, rows in steps(model, x, setting, seed, epochs):
        total, seen = total + loss.item() * rows, seen + rows
        if seen == len(x):
            costs.append(total / seen)
            lengths.append(model.weight.detach().norm().item())
            total, seen = 0.0, 0
        yield
    return costs, lengths, model


@torch.no_grad()
def neighbours(codes: Tensor, labels: Tensor) -> float:
    """The share of each one's nearest, by the cosine of their codes, that are of its class."""
    codes = torch.nn.functional.normalize(codes.flatten(1).float(), dim=1)
    near = codes @ codes.T
    near.fill_diagonal_(-1)
    return 100 * (labels[near.topk(NEAREST).indices] == labels[:, None]).float().mean().item()


def ratios(found: Results, quantity: str) -> list[float]:
    """Layer norm's over the plain one's, of each epoch."""
    pairs = zip(found.curve(LAYER, quantity), found.curve(PLAIN, quantity), strict=True)
    return [layer / plain for layer, plain in pairs]


def plot(found: Results) -> Figure:
    """Both quantities, and their ratios beside those of the blog."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    *panels, last = figure.subplots(1, 3)
    for axes, quantity, unit in zip(panels, (COST, LENGTH), ("cross-entropy of a bag", "‖W‖"), strict=True):
        for arm, colour in ((PLAIN, GREY), (LAYER, RED)):
            curve = found.curve(arm, quantity)
            axes.plot(range(1, len(curve) + 1), curve, color=colour, marker="o", label=arm)
        axes.set_ylabel(unit)
    for quantity, colour in ((COST, "#1f5fbf"), (LENGTH, "#66a182")):
        curve, theirs = ratios(found, quantity), [b / a for a, b in zip(*BLOG[quantity].values(), strict=True)]
        last.plot(range(1, len(curve) + 1), curve, color=colour, marker="o", label=f"{quantity}, ours")
        last.plot((1, 2), theirs, "x", color=colour, markersize=10, label=f"{quantity}, the blog's")
    last.set_ylabel("layer norm / plain")
    for axes in (*panels, last):
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        tidy(axes)
    figure.suptitle(f"Tied ReLU auto-encoder of 128 units, {found.data}", fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__, experiment(epochs=5, rate=0.003))
    data = images(chosen)
    pixels, tested = (t.flatten(1).float() / 255 for t in (data.images, data.test_images))
    sets = {BAGS: (sparse9(), BATCHES), data.name: (pixels, Setting(32, chosen.rate, ()))}
    jobs = {
        (name, arm, seed): Job(chosen.epochs * -(-len(x) // 32), partial(learn, arm, x, s, chosen.epochs, seed))
        for name, (x, s) in sets.items()
        for arm in (PLAIN, LAYER)
        for seed in chosen.seeds
    }
    lines = [Number(data.name, PIXELS, SHARE, neighbours(tested, data.test_labels))]
    for (name, arm, seed), (costs, lengths, model) in run(jobs).items():
        for at, pair in enumerate(zip(costs, lengths, strict=True), 1):
            lines += [Number(name, arm, q, value, seed, at) for q, value in zip((COST, LENGTH), pair, strict=True)]
        if name != BAGS:
            with torch.no_grad():
                codes = model.block(tested @ model.weight.T)
            lines.append(Number(name, arm, SHARE, neighbours(codes, data.test_labels), seed))
    for name in sets:
        found = Results(lines).on(name)
        shown = [(q, at) for at in found.at(PLAIN, COST) for q in (COST, LENGTH)]
        rows = [[arm, *(found.show(arm, q, 1, at) for q, at in shown)] for arm in (PLAIN, LAYER)]
        table(name, ["", *(f"{q}, epoch {at:g}" for q, at in shown)], rows)
    found = Results(lines).on(data.name)
    table(SHARE, ["", data.name], [[arm, found.show(arm, SHARE)] for arm in (PIXELS, PLAIN, LAYER)])
    console.print(f"results: {write(lines, chosen.out, NAME)}")
    save(plot(Results(lines).on(BAGS)), chosen.out, f"{NAME}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
