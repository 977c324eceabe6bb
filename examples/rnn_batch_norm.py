"""Batch norm in an RNN: what fails, what repairs it, and layer norm in small batches.

Images are read pixel by pixel (larger ones are first averaged down to 7x7) or row by row, and the last state is
classified. Batch norms from the first attempt to the one that works best: of the sum or of each term, with one
running statistic or one for each step, with gain 1 or 0.1, or of each step; each is
tested with running and with batch statistics.
"""

import sys
from collections.abc import Generator
from copy import deepcopy
from functools import partial

import torch
from _common import GREY, RED, Job, console, experiment, images, options, run, save, table, tidy
from _data import Images
from _results import Number, Results, write
from _rows import Reader, right
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME = "rnn_batch_norm"
EVAL, TRAIN = "% right, running statistics", "% right, batch statistics"
FIRST, STEPS, GAIN, REPAIRED, AFFINE = BATCH_NORMS = (
    "sum, one statistic, gain 1", "sum, statistics per step, gain 1",
    "sum, statistics per step, gain 0.1", "separate, statistics per step, gain 0.1",
    "the same, gain and bias per step",
)  # fmt: skip
PLAIN, LAYER, BATCH = "no norm", "layer norm", "batch norm"
PIXELS, ROWS = "pixel by pixel", "row by row"
BATCHES, RATES = (32, 4), (0.03, 0.3)  # of the rows
LAYERS = {
    FIRST: partial(nk.BatchNormRNN, norm_terms="sum", max_steps=1, gain=1.0),
    STEPS: partial(nk.BatchNormRNN, norm_terms="sum", gain=1.0),
    GAIN: partial(nk.BatchNormRNN, norm_terms="sum", gain=0.1),
    REPAIRED: partial(nk.BatchNormRNN, norm_terms="separate", gain=0.1),
    AFFINE: partial(nk.BatchNormRNN, norm_terms="separate", gain=0.1, per_step_affine=True),
    PLAIN: nn.RNN, LAYER: nk.LayerNormRNN, BATCH: nk.BatchNormRNN,
}  # fmt: skip
Parts = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]  # sequences and labels, to train and to test with


def sequences(data: Images, reading: str) -> Parts:
    """(images, steps, numbers), from 0 to about 1."""

    def read(found: Tensor) -> Tensor:
        pixels = found.float().mean(1) / 255
        if reading == PIXELS and pixels.shape[1] > 8:
            pixels = nn.functional.adaptive_avg_pool2d(pixels, 7)
        return pixels.flatten(1)[..., None] if reading == PIXELS else pixels

    return (read(data.images), data.labels), (read(data.test_images), data.test_labels)


def learn(arm: str, parts: Parts, batch: int, rate: float, epochs: int, seed: int) -> Generator[None, None, tuple]:
    """Plain SGD; the shares of the test that come out right with running and with batch statistics."""
    (x, y), test = parts
    model = Reader(LAYERS[arm], x.shape[2], seed).to(x.device)
    optimizer, order = torch.optim.SGD(model.parameters(), rate), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=order)[: len(y) // batch * batch].split(batch):
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield
    by_batch = right(deepcopy(model).train(), test, batch)  # a copy, for batch norm goes on tracking
    return right(model.eval(), test, batch), by_batch


def jobs(data: Images, seeds: list[int], epochs: int, rate: float) -> dict[tuple, Job]:
    """By reading, arm, batch, rate and seed."""
    settings = [(PIXELS, arm, 32, rate) for arm in BATCH_NORMS]
    settings += [(ROWS, arm, b, r) for arm in (PLAIN, LAYER, BATCH) for b in BATCHES for r in RATES]
    parts = {reading: sequences(data, reading) for reading in (PIXELS, ROWS)}
    found = {}
    for reading, arm, batch, r in settings:
        long = epochs if reading == PIXELS else max(1, epochs // 4)
        for seed in seeds:
            start = partial(learn, arm, parts[reading], batch, r, long, seed)
            found[reading, arm, batch, r, seed] = Job(long * (len(data.labels) // batch), start)
    return found


def numbers(data: Images, found: dict[tuple, tuple[float, float]]) -> list[Number]:
    """Of the rows the rate is part of the arm's name; ``at`` is the batch size."""
    lines = []
    for (reading, arm, batch, rate, seed), shares in found.items():
        name = f"{data.name}, {reading}"
        arm = arm if reading == PIXELS else f"{arm}, rate {rate:g}"
        lines += [Number(name, arm, q, 100 * v, seed, batch) for q, v in zip((EVAL, TRAIN), shares, strict=True)]
    return lines


def report(found: Results, reading: str) -> None:
    places = sorted({n.at for n in found.numbers})
    heads = [f"{q}, batch {at:g}" for at in places for q in (EVAL, TRAIN)]
    rows = [[arm, *(found.show(arm, q, at=at) for at in places for q in (EVAL, TRAIN))] for arm in found.arms(EVAL)]
    table(f"{found.data}; ± is the deviation over seeds", ["RNN", *heads], rows)


def plot(found: Results) -> Figure:
    """The batch norms, side by side."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, (quantity, colour) in enumerate(((EVAL, RED), (TRAIN, GREY))):
        means = [found.mean(arm, quantity) for arm in BATCH_NORMS]
        axes.barh(
            [k + 0.36 * i for k in range(len(BATCH_NORMS))],
            means,
            0.34,
            color=colour,
            label=quantity[len("% right, ") :],
        )
    axes.set_yticks([k + 0.18 for k in range(len(BATCH_NORMS))], BATCH_NORMS)
    axes.axvline(10, color="black", linewidth=0.8, linestyle=":")
    axes.invert_yaxis()
    axes.set(xlabel="% of the test right (dotted: by guessing)", xlim=(0, 100))
    axes.legend(frameon=False, title="tested with", loc="upper right")
    tidy(axes)
    figure.suptitle(f"Batch norm in an RNN: {found.data}", fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__, experiment(epochs=10, rate=0.03))
    data = images(chosen)
    lines = numbers(data, run(jobs(data, chosen.seeds, chosen.epochs, chosen.rate)))
    for reading in (PIXELS, ROWS):
        report(Results(n for n in lines if n.data.endswith(reading)), reading)
    console.print(f"results: {write(lines, chosen.out, NAME)}")
    save(plot(Results(n for n in lines if n.data.endswith(PIXELS))), chosen.out, f"{NAME}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
