"""What batch norm is said to bring: gradients that keep their size, higher rates, any initialisation, regularisation.

Ten hidden layers of 64 with ReLU, with batch norm and without, on images averaged down to 8x8.
"""

import sys
from collections.abc import Generator
from functools import partial

import torch
from _common import GREY, RED, Job, console, experiment, images, options, run, save, table, tidy
from _convnet import accuracy, step
from _data import Images
from _mlp import BATCH as BATCH_NORM
from _mlp import NONE, network
from _results import Number, Results, write
from matplotlib.figure import Figure
from torch import Tensor, nn

NAME = "batch_norm_gains"
DEPTH, BATCH = 10, 64
RATES, SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0)
BY_RATE, BY_SCALE, GAP = (
    "% right by rate",
    "% right by scale of the weights",
    "% right in training less % right in the test",
)
GRADIENT = "gradient of layer 1 over that of layer 10, as initialised, by scale of the weights"
ARMS = (NONE, BATCH_NORM)
Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def parts(data: Images) -> Parts:
    """64 pixels, standardised by the mean and deviation of all of them."""

    def read(found: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(found.float().mean(1, keepdim=True), 8).flatten(1)

    x, test = read(data.images), read(data.test_images)
    mean, deviation = x.mean(), x.std()
    return (x - mean) / deviation, data.labels, (test - mean) / deviation, data.test_labels


def learn(arm: str, found: Parts, rate: float, scale: float, epochs: int, seed: int) -> Generator[None, None, tuple]:
    """SGD with momentum; % right of test and training, and what becomes of the gradient on its way back."""
    x, y, *test = found
    model = network(arm, DEPTH, seed, None)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    with torch.no_grad():
        for weight in matrices[:-1]:
            weight.mul_(scale)
    optimizer, order = torch.optim.SGD(model.parameters(), rate, momentum=0.9), torch.Generator().manual_seed(seed)
    gradient = flow(model, x[:BATCH], y[:BATCH])
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=order)[: len(y) // BATCH * BATCH].split(BATCH):
            step(model, optimizer, x[rows], y[rows])
            yield
    return 100 * accuracy(model, *test), 100 * accuracy(model, x, y), gradient


def flow(model: nn.Sequential, x: Tensor, y: Tensor) -> float:
    """The length of the loss's gradient by the units of the first layer, in that by those of the last hidden one."""
    units = [x]
    for layer in model:
        units.append(layer(units[-1]))
    ends = torch.autograd.grad(nn.functional.cross_entropy(units[-1], y), (units[1], units[DEPTH]))
    return (ends[0].norm() / ends[1].norm()).item()


def numbers(data: Images, found: dict[tuple, tuple], at: float) -> list[Number]:
    """By rate with the weights as they are, and by their scale at one rate."""
    lines = []
    for (arm, rate, scale, seed), (right, trained, gradient) in found.items():
        if scale == 1:
            lines += [Number(data.name, arm, BY_RATE, right, seed, rate)]
            lines += [Number(data.name, arm, GAP, trained - right, seed, rate)]
        if rate == at:
            lines += [Number(data.name, arm, BY_SCALE, right, seed, scale)]
            lines += [Number(data.name, arm, GRADIENT, gradient, seed, scale)]
    return lines


def plot(found: Results) -> Figure:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    labels = {BY_RATE: "learning rate", BY_SCALE: "scale of the first weights, in Glorot's"}
    for axes, (quantity, label) in zip(figure.subplots(1, 2, sharey=True), labels.items(), strict=True):
        for arm, colour in zip(ARMS, (GREY, RED), strict=True):
            axes.plot(found.at(arm, quantity), found.curve(arm, quantity), "o-", color=colour, linewidth=2, label=arm)
        axes.set(xlabel=label, xscale="log")
        axes.legend(frameon=False)
        tidy(axes)
    figure.axes[1].set_xticks(SCALES, [f"{scale:g}" for scale in SCALES])
    figure.axes[1].minorticks_off()
    figure.axes[0].set_ylabel("% of the test right")
    figure.suptitle(f"Ten hidden layers: {found.data}", fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__, experiment(epochs=8, rate=RATES[1], images=2000))
    data = images(chosen)
    found, jobs = parts(data), {}
    settings = dict.fromkeys([*((rate, 1.0) for rate in RATES), *((chosen.rate, scale) for scale in SCALES)])
    for arm in ARMS:
        for rate, scale in settings:
            for seed in chosen.seeds:
                start = partial(learn, arm, found, rate, scale, chosen.epochs, seed)
                jobs[arm, rate, scale, seed] = Job(chosen.epochs * (len(data.labels) // BATCH), start)
    lines = numbers(data, run(jobs), chosen.rate)
    results = Results(lines)
    for quantity in (BY_RATE, GAP, BY_SCALE, GRADIENT):
        places = results.at(NONE, quantity)
        rows = [[arm, *(results.show(arm, quantity, 2, at) for at in places)] for arm in ARMS]
        table(quantity, ["", *(f"{at:g}" for at in places)], rows)
    console.print(f"results: {write(lines, chosen.out, NAME)}")
    save(plot(results), chosen.out, f"{NAME}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
