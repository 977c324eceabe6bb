"""The Network in Network of the NormProp paper: no norm, torch's batch norm, ours with its ReLU, NormProp.

The paper's recipe: SGD with momentum, rate 0.05 in batches of 50 (0.08 of 100, here in proportion below 50) that is
halved now and then, weight decay, data normalised batch by batch. Its results took --epochs 200 --halve 25 on CIFAR.
On the digits 0.05 is too much for NormProp: there the rate is 0.02. --time trains nothing: it times a step.
"""

import argparse
import sys
from collections.abc import Generator
from functools import partial

import torch
from _common import experiment, images, main, options
from _console import console, table
from _data import DIGITS, Images
from _jobs import Job, run
from _nin import DECAY, NONE, RATE, RATE_WITHOUT_NORM, VARIANTS, network, optimizer, scaled
from _nin_time import NAME as TIME
from _nin_time import measure as time_steps
from _nin_time import report as report_times
from _plots import legend, panels, whole
from _results import Number, Results
from _training import accuracy, step
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME, RIGHT, LOSS = "nin", "% right", "training loss"
OPTIONS = {
    **experiment(epochs=30),
    "--images": {"type": int, "help": "how many of them to train with, at most"},
    "--tested": {"type": int, "help": "how many to test with, at most"},
    "--variants": {"nargs": "+", "choices": VARIANTS, "default": VARIANTS, "help": "what to train"},
    "--halve": {"type": int, "default": 10, "help": "epochs until the rate is halved"},
    "--batch": {"type": int, "default": 50, "help": "images for each step; --rate is that of batches of 50"},
    "--decay": {"type": float, "default": DECAY, "help": "weight decay"},
    "--normalize": {"choices": ("global", "batch"), "default": "global", "help": "the data: as a whole, or by batches"},
    "--flip": {"action": "store_true", "help": "half of the images of a batch are mirrored"},
    "--validation": {"type": int, "default": 0, "help": "test with the last training images, as many as this"},
    "--width": {"type": float, "default": 1.0, "help": "filters, in parts of the paper's"},
    "--as-printed": {"action": "store_true", "help": "the two paddings as they are printed in the paper"},
    "--time": {"action": "store_true", "help": "do not train: time one step of each variant on one CPU thread"},
}
QUICK = {"epochs": 2, "width": 0.125, "images": 256, "tested": 128}
DIGITS_RATE = 0.02


def enlarged(images: Tensor) -> Tensor:
    """3x32x32: digits four times as large, others as they are or padded; what is grey stays so."""
    side = images.shape[-1]
    if side == 8:
        images = nn.functional.interpolate(images.float(), scale_factor=4.0, mode="bilinear").to(torch.uint8)
    elif side < 32:
        images = nn.functional.pad(images, [(32 - side) // 2] * 4)
    return images.expand(-1, 3, -1, -1)


def parts(data: Images, validation: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train with, and to test with: of the test, or of the end of the training images."""
    x, y, test, test_labels = enlarged(data.images), data.labels, enlarged(data.test_images), data.test_labels
    if validation:
        x, test, y, test_labels = x[:-validation], x[-validation:], y[:-validation], y[-validation:]
    return x, y, test, test_labels


def flipped(images: Tensor) -> Tensor:
    """Half of them mirrored."""
    return torch.where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, images.flip(-1), images)


def rate_of(chosen: argparse.Namespace, variant: str) -> float:
    """The paper's where nothing else is said; of the net without a norm always, for larger ones diverge."""
    rate = (DIGITS_RATE if chosen.data == DIGITS else RATE) if chosen.rate is None else chosen.rate
    return RATE_WITHOUT_NORM if variant == NONE else scaled(rate, chosen.batch)


def learn(chosen: argparse.Namespace, variant: str, data: Images, seed: int) -> Generator[None, None, list]:
    """Of each epoch the % right and the mean loss; a line for each, for this can take days."""
    torch.manual_seed(seed)
    x, y, *test = parts(data, chosen.validation)
    norm = nk.DataNorm((3, 32, 32), chosen.normalize).to(x.device)
    norm = norm.fit(t.float() for t in x.split(1000)) if chosen.normalize == "global" else norm
    model = network(variant, chosen.width, chosen.as_printed, 3, int(y.max()) + 1).to(x.device)
    rate, curve = rate_of(chosen, variant), []
    found = optimizer(model, rate, chosen.decay)
    for epoch in range(chosen.epochs):
        for group in found.param_groups:
            group["lr"] = rate / 2 ** (epoch // chosen.halve)
        losses = []
        for rows in torch.randperm(len(y))[: len(y) // chosen.batch * chosen.batch].split(chosen.batch):
            image = flipped(x[rows].float()) if chosen.flip else x[rows].float()
            losses.append(step(model, found, norm(image), y[rows]))
            nk.project_unit_norm_(model)  # does nothing without NormProp layers
            yield
        right = 100 * accuracy(nn.Sequential(_Floats(), norm, model).eval(), test[0], test[1], 100)
        norm.train()
        model.train()
        curve.append((right, sum(losses) / len(losses)))
        console.print(f"{variant}, seed {seed}, epoch {epoch + 1}: {right:.1f} %", highlight=False)
    return curve


class _Floats(nn.Module):
    """Of bytes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def measure(chosen: argparse.Namespace) -> list[Number]:
    """``at`` is the epoch."""
    data = images(chosen)
    steps = chosen.epochs * ((len(data.labels) - chosen.validation) // chosen.batch)
    jobs = {(variant, seed): Job(steps, partial(learn, chosen, variant, data, seed))
            for variant in chosen.variants for seed in chosen.seeds}  # fmt: skip
    return [
        Number(data.name, variant, quantity, value, seed, epoch)
        for (variant, seed), curve in run(jobs).items()
        for epoch, pair in enumerate(curve, 1)
        for quantity, value in zip((RIGHT, LOSS), pair, strict=True)
    ]


def report(found: Results) -> None:
    rows = [[v, found.show(v, RIGHT, at=1), found.show(v, RIGHT), found.show(v, LOSS, 3)] for v in found.arms(RIGHT)]
    table(f"{found.data}: % right", ["", "epoch 1", "at the end", "loss"], rows)


def plots(found: Results) -> dict[str, Figure]:
    figure, axes = panels(1, width=8)
    for i, variant in enumerate(found.arms(RIGHT)):
        epochs = found.at(variant, RIGHT)
        axes[0].plot(epochs, found.curve(variant, RIGHT), "o-", color=f"C{i}", label=variant)
        axes[0].plot(epochs, [found.values(variant, RIGHT, at) for at in epochs], color=f"C{i}", linewidth=0.8)
    axes[0].set(ylabel="% of the test right", ylim=(0, 100), title=f"{found.data}; thin: each seed")
    whole(axes)
    legend(figure)
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    chosen = options(__doc__, OPTIONS)
    if chosen.quick:
        vars(chosen).update(QUICK)
    if chosen.time:
        sys.exit(main(TIME, chosen, time_steps, report_times))
    sys.exit(main(NAME, chosen, measure, report, plots))
