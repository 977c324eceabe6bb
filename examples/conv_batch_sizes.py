"""A residual conv net in batches of 64 and on single samples: online norm beside batch, group, layer and instance norm.

The rates of small batches follow from that of 64 by the recipe of the Online Normalization paper: of b samples instead
of B the momentum is m^(b / B), and the rate is scaled by b / B (1 - m^(b / B)) / (1 - m), so that a sample moves
the weights as far, and its effect dies away over as many samples.
"""

import math
import sys
from collections.abc import Callable, Generator
from functools import partial

import torch
from _common import Job, console, experiment, images, options, run, save, table, tidy
from _convnet import ConvNet, accuracy, step
from _data import Images
from _results import Number, Results, write
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME = "conv_batch_sizes"
ACCURACY, LOSS, REFUSED = "% right", "training loss", "refused"
NONE, BATCH, GROUP, LAYER, INSTANCE = (
    "no norm",
    "batch norm",
    "group norm",
    "layer norm over (C, H, W)",
    "instance norm",
)
ONLINE, STABLE, RENORM = "online norm", "online norm, stable and bias-corrected", "batch renorm"
ARMS: dict[str, Callable[[int], nn.Module]] = {
    NONE: lambda n: _Plain(),
    BATCH: lambda n: nk.BatchNorm2d(n, activation="relu"),
    RENORM: lambda n: nk.BatchRenorm2d(n, warmup_steps=50, r_ramp_steps=350, d_ramp_steps=200, activation="relu"),
    GROUP: lambda n: nk.GroupNorm(8, n, activation="relu"),
    LAYER: lambda n: nk.GroupNorm(1, n, activation="relu"),
    INSTANCE: lambda n: nk.InstanceNorm2d(n, affine=True, activation="relu"),
    ONLINE: lambda n: nk.OnlineNorm2d(n, activation="relu"),
    STABLE: lambda n: nk.OnlineNorm2d(n, activation="relu", stable=True, bias_correction=True),
}
BATCHES, MOMENTUM, WIDTHS = (64, 2, 1), 0.9, (16, 32, 32, 32)
FEW = (BATCH, RENORM)  # the arms in pairs
Parts = tuple[Tensor, Tensor, Tensor, Tensor]


class _Plain(nn.Module):
    """The skip connection and ReLU alone."""

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        return torch.relu(input if skip is None else input + skip)


def tried(batch: int) -> list[str]:
    if batch == 2:
        return list(FEW)
    return [arm for arm in ARMS if batch > 1 or arm not in FEW]


def scaled(rate: float, batch: int) -> tuple[float, float]:
    """Rate and momentum of smaller batches, from those of the largest."""
    share = batch / BATCHES[0]
    momentum = MOMENTUM**share
    return rate * share * (1 - momentum) / (1 - MOMENTUM), momentum


def parts(data: Images) -> Parts:
    """Pixels from 0 to 1; images larger than 16x16 are averaged down to half their side."""

    def read(found: Tensor) -> Tensor:
        pixels = found.float() / 255
        return nn.functional.avg_pool2d(pixels, 2) if pixels.shape[-1] > 16 else pixels

    return read(data.images), data.labels, read(data.test_images), data.test_labels


def learn(arm: str, found: Parts, batch: int, rate: float, epochs: int, seed: int) -> Generator[None, None, list]:
    """SGD, its rate falling to 0 by a cosine; of each epoch the % right of the test, and the mean loss."""
    x, y, *test = found
    model, curve = ConvNet(ARMS[arm], seed, (x.shape[1], *WIDTHS), int(y.max()) + 1), []
    rate, momentum = scaled(rate, batch)
    optimizer, order = torch.optim.SGD(model.parameters(), rate, momentum=momentum), torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        losses = []
        for rows in torch.randperm(len(y), generator=order)[: len(y) // batch * batch].split(batch):
            losses.append(step(model, optimizer, x[rows], y[rows]))
            yield
        curve.append((100 * accuracy(model, *test), sum(losses) / len(losses)))
        model.train()
    return curve


def refuses() -> bool:
    """Whether batch norm refuses a sample of which it sees one value for each channel."""
    try:
        nk.BatchNorm1d(8)(torch.zeros(1, 8))
    except ValueError:
        return True
    return False


def numbers(data: Images, found: dict[tuple[str, int, int], list]) -> list[Number]:
    """The batch is part of the data's name; ``at`` is the epoch."""
    lines = [Number(f"{data.name}, batches of 1", BATCH, REFUSED, refuses())]
    for (arm, batch, seed), curve in found.items():
        for epoch, pair in enumerate(curve, 1):
            name = f"{data.name}, batches of {batch}"
            lines += [Number(name, arm, q, v, seed, epoch) for q, v in zip((ACCURACY, LOSS), pair, strict=True)]
    return lines


def plot(results: dict[int, Results], title: str) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    colours = dict(zip(ARMS, colormaps["tab10"].colors, strict=False))
    for axes, batch in zip(figure.subplots(1, 2, sharey=True), (BATCHES[0], BATCHES[-1]), strict=True):
        for arm in tried(batch):
            curve = results[batch].curve(arm, ACCURACY)
            axes.plot(range(1, len(curve) + 1), curve, color=colours[arm], linewidth=2, label=arm)
        axes.set(title=f"batches of {batch}", xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        tidy(axes)
    figure.axes[0].set_ylabel("% of the test right")
    figure.axes[0].legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__, experiment(epochs=4, rate=0.05, images=4000))
    data = images(chosen)
    found, count = parts(data), len(data.labels)
    keys = [(arm, batch, seed) for batch in BATCHES for arm in tried(batch) for seed in chosen.seeds]
    jobs = {
        (arm, b, seed): Job(
            chosen.epochs * (count // b), partial(learn, arm, found, b, chosen.rate, chosen.epochs, seed)
        )
        for arm, b, seed in keys
    }
    lines = numbers(data, run(jobs))
    results = {b: Results(n for n in lines if n.data.endswith(f"batches of {b}")) for b in BATCHES}
    rows = [[f"{arm}, {b}", found.show(arm, ACCURACY), found.show(arm, LOSS, 3, at=1)]
            for b, found in results.items() for arm in tried(b)]  # fmt: skip
    table(data.name, ["norm, batch", "% right", "mean loss of epoch 1"], rows)
    console.print(f"results: {write(lines, chosen.out, NAME)}")
    save(plot(results, f"A conv net with each norm: {data.name}"), chosen.out, f"{NAME}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
