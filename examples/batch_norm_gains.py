"""What batch norm is said to bring: gradients and inputs of layers that keep their size, higher rates, any
initialisation, regularisation, less need of dropout; beside layer norm, NormProp and no norm.

Ten hidden layers of 64 with ReLU on images averaged down to 8x8, each at the same rates; where one rate is shown, it is
the arm's best by a fifth of the training images.
"""

import argparse
import sys
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import torch
from _common import experiment, images, main, options
from _console import table
from _data import Images
from _jobs import Job, run, tuned, validated
from _mlp import BATCH as BATCH_NORM
from _mlp import LAYER, NONE, NORMPROP, network
from _plots import legend, panels
from _results import Number, Results
from _training import accuracy, step
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME = "batch_norm_gains"
DEPTH, BATCH, DROPPED = 10, 64, (0.05, 0.2)
RATES, SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0)
BY_RATE, BY_SCALE = "% right by rate", "% right by scale of the weights"
RIGHT, TRAINED, RATE = "% right by dropout", "% right in training by dropout", "best rate"
GRADIENT = "gradient of layer 1 over that of layer 10, as initialised, by scale of the weights"
SPREAD = "deviation entering layer 10 over that entering layer 2, as initialised, by scale of the weights"
ARMS = (NONE, BATCH_NORM, LAYER, NORMPROP)
Parts = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    arm: str
    rate: float
    scale: float = 1.0  # of the first weights
    dropout: float = 0.0


@dataclass(frozen=True)
class Run:
    right: float
    trained: float
    gradient: float
    spread: float


def parts(data: Images) -> Parts:
    """64 pixels, standardised by the mean and deviation of all of them."""

    def read(found: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(found.float().mean(1, keepdim=True), 8).flatten(1)

    x, test = read(data.images), read(data.test_images)
    mean, deviation = x.mean(), x.std()
    return (x - mean) / deviation, data.labels, (test - mean) / deviation, data.test_labels


def learn(s: Setting, found: Parts, epochs: int, seed: int) -> Generator[None, None, Run]:
    """SGD with momentum; % right of test and training, and what becomes of signal and gradient at first."""
    x, y, test, test_labels = found
    model = network(s.arm, DEPTH, seed, s.dropout).to(x.device)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    with torch.no_grad():
        for weight in matrices[:-1]:
            weight.mul_(s.scale)
    optimizer, order = torch.optim.SGD(model.parameters(), s.rate, momentum=0.9), torch.Generator().manual_seed(seed)
    gradient, spread = flow(model.eval() if s.dropout else model, x[:BATCH], y[:BATCH])
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=order)[: len(y) // BATCH * BATCH].split(BATCH):
            step(model, optimizer, x[rows], y[rows])
            nk.project_unit_norm_(model)  # filters of length 1; only NormProp has any
            yield
    model.eval()
    return Run(100 * accuracy(model, test, test_labels), 100 * accuracy(model, x, y), gradient, spread)


def last(*arguments) -> Generator[None, None, float]:
    """The % right at the end of ``learn(*arguments)``."""
    found = yield from learn(*arguments)
    return found.right


def flow(model: nn.Sequential, x: Tensor, y: Tensor) -> tuple[float, float]:
    """The length of the loss's gradient by what enters the second layer, in that by what leaves the last hidden one;
    and the deviation of what enters the last hidden layer, in that of what enters the second."""
    units = [x]
    for layer in model:
        units.append(layer(units[-1]))
    ends = torch.autograd.grad(nn.functional.cross_entropy(units[-1], y), (units[1], units[DEPTH]))
    return (ends[0].norm() / ends[1].norm()).item(), (units[DEPTH - 1].std() / units[1].std()).item()


def numbers(data: Images, found: dict[tuple[Setting, int], Run], best: dict[str, float]) -> list[Number]:
    """By rate with the weights as they are; by their scale, and by dropout, at each arm's best rate."""
    lines = [Number(data.name, arm, RATE, rate) for arm, rate in best.items()]
    for (s, seed), got in found.items():
        if s.scale == 1 and not s.dropout:
            lines.append(Number(data.name, s.arm, BY_RATE, got.right, seed, s.rate))
        if s.rate == best[s.arm] and s.scale == 1:
            lines.append(Number(data.name, s.arm, RIGHT, got.right, seed, s.dropout))
            lines.append(Number(data.name, s.arm, TRAINED, got.trained, seed, s.dropout))
        if s.rate == best[s.arm] and not s.dropout:
            by_scale = ((BY_SCALE, got.right), (GRADIENT, got.gradient), (SPREAD, got.spread))
            lines += [Number(data.name, s.arm, q, value, seed, s.scale) for q, value in by_scale]
    return lines


def measure(chosen: argparse.Namespace) -> list[Number]:
    data = images(chosen)
    found, held = parts(data), parts(data.held_out())

    def job(start, s: Setting, found: Parts, seed: int) -> Job:
        return Job(chosen.epochs * (len(found[1]) // BATCH), partial(start, s, found, chosen.epochs, seed))

    best, trials = tuned(
        chosen, dict.fromkeys(ARMS, RATES), lambda arm, rate: job(last, Setting(arm, rate), held, chosen.seeds[0])
    )
    tried = [Setting(arm, rate) for arm in ARMS for rate in dict.fromkeys((*RATES, best[arm]))]
    tried += [Setting(arm, best[arm], scale) for arm in ARMS for scale in SCALES if scale != 1]
    tried += [Setting(arm, best[arm], dropout=share) for arm in (NONE, BATCH_NORM) for share in DROPPED]
    runs = run({(s, seed): job(learn, s, found, seed) for s in tried for seed in chosen.seeds})
    return [*validated(data.held_out().name, trials), *numbers(data, runs, best)]


def report(found: Results) -> None:
    for quantity in (BY_RATE, BY_SCALE, GRADIENT, SPREAD, RIGHT, TRAINED):
        places = found.at(NONE, quantity)
        rows = [[arm, *(found.show(arm, quantity, 2, at) for at in places)] for arm in found.arms(quantity)
                if found.at(arm, quantity) == places]  # fmt: skip
        table(quantity, ["", *(f"{at:g}" for at in places)], rows)


def plots(found: Results) -> dict[str, Figure]:
    figure, axes = panels(2, width=6.2, sharey=True)
    labels = {BY_RATE: "learning rate", BY_SCALE: "scale of the first weights, in Glorot's"}
    for each, (quantity, label) in zip(axes, labels.items(), strict=True):
        for i, arm in enumerate(ARMS):
            places = found.at(arm, quantity)
            each.plot(places, found.curve(arm, quantity), "o-", color=f"C{i}", label=arm)
            each.plot(places, [found.values(arm, quantity, at) for at in places], color=f"C{i}", linewidth=0.8)
        each.set(xlabel=label, xscale="log", ylim=(0, 100))
    axes[1].set_xticks(SCALES, [f"{scale:g}" for scale in SCALES])
    axes[1].minorticks_off()
    axes[0].set_title("by rate")
    axes[1].set_title("by first weights, at the best rate")
    axes[0].set_ylabel("% of the test right")
    legend(figure, 4)
    data = Results(n for n in found.numbers if n.quantity == BY_RATE).data
    figure.suptitle(f"Ten hidden layers (thin: each seed)\n{data}")
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__, experiment(epochs=6, images=2000)), measure, report, plots))
