"""The blog's auto-encoder, plain and with layer norm: cost and length of the weights of each epoch, and neighbours.

On bags of words, 1,992 units as there, both at the same rates, in batches of 32 and as a stream of single bags; and on
images, whose nearest neighbours by code can be judged by their class.
"""

import argparse
import sys
from functools import partial

import torch
from _autoencoder import learn, sparse9
from _common import experiment, images, main, options
from _console import table
from _jobs import Job, run
from _plots import BLUE, GREEN, GREY, RED, legend, panels, whole
from _results import Number, Results
from matplotlib.figure import Figure
from torch import Tensor

NAME = "blog_autoencoder"
PLAIN, LAYER, PIXELS = "plain", "layer norm", "pixels themselves"
COST, LENGTH, SHARE = "cost", "|W|", "% of the 5 nearest of its class"
BAGS, STREAM = "bags of words", "single bags of words"
RATES, STREAM_RATE = (0.1, 0.03, 0.2, 0.3, 1.0), 0.003  # the first is the one that the comparison is at
NEAREST, IMAGE_BATCH = 5, 32
BLOG = {  # its two epochs
    COST: {PLAIN: (2.6762, 1.5721), LAYER: (1.4755, 0.8076)},
    LENGTH: {PLAIN: (20.89, 21.36), LAYER: (27.84, 31.24)},
}


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


def at_rate(rate: float) -> str:
    """The name of the bags at a rate, by which results are found."""
    return BAGS if rate == RATES[0] else f"{BAGS}, rate {rate:g}"


def measure(chosen: argparse.Namespace) -> list[Number]:
    """``at`` is the epoch; the rate is part of the data's name."""
    data, bags = images(chosen), sparse9().to(chosen.device)
    bags = bags[: chosen.images] if chosen.quick else bags
    pixels, tested = (t.flatten(1).float() / 255 for t in (data.images, data.test_images))
    sets = {at_rate(rate): (bags, 32, rate, chosen.epochs) for rate in RATES}
    sets |= {STREAM: (bags, 1, STREAM_RATE, 2), data.name: (pixels, IMAGE_BATCH, chosen.rate, chosen.epochs)}
    jobs = {
        (name, arm, seed): Job(epochs * -(-len(x) // batch), partial(learn, arm == LAYER, x, batch, rate, epochs, seed))
        for name, (x, batch, rate, epochs) in sets.items()
        for arm in (PLAIN, LAYER)
        for seed in chosen.seeds
    }
    lines = [Number(data.name, PIXELS, SHARE, neighbours(tested, data.test_labels))]
    for (name, arm, seed), (curve, model) in run(jobs).items():
        for at, pair in enumerate(curve, 1):
            lines += [Number(name, arm, q, value, seed, at) for q, value in zip((COST, LENGTH), pair, strict=True)]
        if name == data.name:
            lines.append(Number(name, arm, SHARE, neighbours(model.codes(tested).detach(), data.test_labels), seed))
    return lines


def exactly(found: Results, data: str) -> Results:
    """The results of one data set by its whole name."""
    return Results(n for n in found.numbers if n.data == data)


def report(found: Results) -> None:
    for name in dict.fromkeys(n.data for n in found.numbers if n.quantity == COST):
        each = exactly(found, name)
        shown = [(q, at) for at in each.at(PLAIN, COST) for q in (COST, LENGTH)]
        rows = [[arm, *(each.show(arm, q, 1, at) for q, at in shown)] for arm in (PLAIN, LAYER)]
        table(name, ["", *(f"{q}, epoch {at:g}" for q, at in shown)], rows)
    each = Results(n for n in found.numbers if n.quantity == SHARE)
    table(SHARE, ["", each.data], [[arm, each.show(arm, SHARE)] for arm in (PIXELS, PLAIN, LAYER)])


def plots(found: Results) -> dict[str, Figure]:
    """Both quantities, and their ratios beside those of the blog."""
    found = exactly(found, BAGS)
    figure, axes = panels(3, width=4.8)
    for each, quantity, unit in zip(axes, (COST, LENGTH), ("cross-entropy of a bag, nats", "‖W‖"), strict=False):
        for arm, colour in ((PLAIN, GREY), (LAYER, RED)):
            curve = found.curve(arm, quantity)
            each.plot(range(1, len(curve) + 1), curve, "o-", color=colour, label=arm)
        each.set_title(unit)
    for quantity, colour in ((COST, BLUE), (LENGTH, GREEN)):
        curve, theirs = ratios(found, quantity), [b / a for a, b in zip(*BLOG[quantity].values(), strict=True)]
        axes[2].plot(range(1, len(curve) + 1), curve, "o-", color=colour, label=f"{quantity}, ours")
        axes[2].plot((1, 2), theirs, "X", color=colour, markersize=13, markeredgecolor="black",
                     label=f"{quantity}, the blog's")  # fmt: skip
    axes[2].set_title("layer norm / plain")
    for each in axes:
        each.set_ylim(bottom=0)
    whole(axes)
    legend(figure, 6)
    figure.suptitle(f"Tied ReLU auto-encoder of 128 units, {found.data}, rate {RATES[0]}")
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__, experiment(epochs=5, rate=0.003)), measure, report, plots))
