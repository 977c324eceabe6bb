"""A residual conv net in batches of 64 and on single samples: online norm beside batch, group, layer and instance norm.

Every norm has the best of a few rates in batches of 64, by a fifth of the training images; those of torch.nn have ours,
and start from the same weights on the same batches. The rates of small batches follow by the recipe of the Online
Normalization paper: of b samples instead of B the momentum is m^(b / B), and the rate is scaled by
b / B (1 - m^(b / B)) / (1 - m), so that a sample moves the weights as far, and its effect dies away over as many.
"""

import argparse
import math
import sys
from collections.abc import Callable, Generator
from functools import partial

import torch
from _common import experiment, images, main, options
from _console import table
from _convnet import ConvNet, Twin
from _data import Images
from _jobs import Job, run, tuned, validated
from _plots import legend, panels, whole
from _results import Number, Results
from _training import accuracy, step
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME = "conv_batch_sizes"
ACCURACY, LOSS, RATE, REFUSED, KEPT = "% right", "training loss", "rate", "refused", "MB kept for backward"
NONE, BATCH, GROUP, LAYER, INSTANCE = (
    "no norm", "batch norm", "group norm", "layer norm over (C, H, W)", "instance norm",
)  # fmt: skip
ONLINE, STABLE, RENORM = "online norm", "online norm, stable and bias-corrected", "batch renorm"
TORCH = {BATCH: "batch norm of torch.nn", GROUP: "group norm of torch.nn", INSTANCE: "instance norm of torch.nn"}
ARMS: dict[str, Callable[[int], nn.Module]] = {
    NONE: lambda n: Twin(nn.Identity()),
    BATCH: lambda n: nk.BatchNorm2d(n, activation="relu"),
    RENORM: lambda n: nk.BatchRenorm2d(n, warmup_steps=50, r_ramp_steps=350, d_ramp_steps=200, activation="relu"),
    GROUP: lambda n: nk.GroupNorm(8, n, activation="relu"),
    LAYER: lambda n: nk.GroupNorm(1, n, activation="relu"),
    INSTANCE: lambda n: nk.InstanceNorm2d(n, affine=True, activation="relu"),
    ONLINE: lambda n: nk.OnlineNorm2d(n, activation="relu"),
    STABLE: lambda n: nk.OnlineNorm2d(n, activation="relu", stable=True, bias_correction=True),
    TORCH[BATCH]: lambda n: Twin(nn.BatchNorm2d(n)),
    TORCH[GROUP]: lambda n: Twin(nn.GroupNorm(8, n)),
    TORCH[INSTANCE]: lambda n: Twin(nn.InstanceNorm2d(n, affine=True)),
}
TRIED = [arm for arm in ARMS if arm not in TORCH.values()]
RATES = (0.02, 0.05, 0.1, 0.2)  # in batches of 64
BATCHES, MOMENTUM, WIDTHS = (64, 2, 1), 0.9, (16, 32, 32, 32)
FEW = (BATCH, RENORM)  # the arms in pairs
Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def in_batches_of(batch: int) -> list[str]:
    if batch == 2:
        return list(FEW)
    return list(ARMS) if batch > 1 else [arm for arm in TRIED if arm not in FEW]


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


def network(arm: str, found: Parts, seed: int) -> ConvNet:
    x, y = found[:2]
    return ConvNet(ARMS[arm], seed, (x.shape[1], *WIDTHS), int(y.max()) + 1).to(x.device)


def learn(arm: str, found: Parts, batch: int, rate: float, epochs: int, seed: int) -> Generator[None, None, list]:
    """SGD, its rate falling to 0 by a cosine; of each epoch the % right of the test, and the mean loss."""
    x, y, test, test_labels = found
    model, curve = network(arm, found, seed), []
    rate, momentum = scaled(rate, batch)
    optimizer, order = torch.optim.SGD(model.parameters(), rate, momentum=momentum), torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        losses = []
        for rows in torch.randperm(len(y), generator=order)[: len(y) // batch * batch].split(batch):
            losses.append(step(model, optimizer, x[rows], y[rows]))
            yield
        curve.append((100 * accuracy(model.eval(), test, test_labels), sum(losses) / len(losses)))
        model.train()
    return curve


def last(*arguments) -> Generator[None, None, float]:
    """The % right at the end of ``learn(*arguments)``."""
    curve = yield from learn(*arguments)
    return curve[-1][0]


def refuses() -> bool:
    """Whether batch norm refuses a sample of which it sees one value for each channel."""
    try:
        nk.BatchNorm1d(8)(torch.zeros(1, 8))
    except ValueError:
        return True
    return False


def kept(arm: str, found: Parts, batch: int) -> float:
    """MB of the tensors that forward leaves for backward, each counted once, without the parameters."""
    model, seen = network(arm, found, 0), {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = model(found[0][:batch].clone())  # a view would keep all images
    del scores
    return sum(seen.values()) / 1e6


def measure(chosen: argparse.Namespace) -> list[Number]:
    """The batch is part of the data's name; ``at`` is the epoch."""
    data = images(chosen)
    found, held = parts(data), parts(data.held_out())

    def job(start: Callable, arm: str, found: Parts, batch: int, rate: float, seed: int) -> Job:
        steps = chosen.epochs * (len(found[1]) // batch)
        return Job(steps, partial(start, arm, found, batch, rate, chosen.epochs, seed))

    rates, trials = tuned(
        chosen, dict.fromkeys(TRIED, RATES), lambda arm, rate: job(last, arm, held, BATCHES[0], rate, chosen.seeds[0])
    )
    rates |= {theirs: rates[ours] for ours, theirs in TORCH.items()}
    jobs = {(arm, b, seed): job(learn, arm, found, b, rates[arm], seed)
            for b in BATCHES for arm in in_batches_of(b) for seed in chosen.seeds}  # fmt: skip
    lines = validated(data.held_out().name, trials)
    lines += [Number(f"{data.name}, batches of 1", BATCH, REFUSED, refuses())]
    lines += [Number(f"{data.name}, batches of {b}", ONLINE, KEPT, kept(ONLINE, found, b)) for b in (64, 1)]
    lines += [Number(f"{data.name}, batches of {BATCHES[0]}", arm, RATE, rate) for arm, rate in rates.items()]
    for (arm, batch, seed), curve in run(jobs).items():
        name = f"{data.name}, batches of {batch}"
        for epoch, pair in enumerate(curve, 1):
            lines += [Number(name, arm, q, v, seed, epoch) for q, v in zip((ACCURACY, LOSS), pair, strict=True)]
    return lines


def by_batch(found: Results) -> dict[int, Results]:
    return {b: Results(n for n in found.numbers if n.data.endswith(f"batches of {b}")) for b in BATCHES}


def report(found: Results) -> None:
    results = by_batch(found)
    rows = [[f"{arm}, {b}", f"{results[64].mean(arm, RATE):g}", each.show(arm, ACCURACY), each.show(arm, LOSS, 3, at=1)]
            for b, each in results.items() for arm in each.arms(ACCURACY)]  # fmt: skip
    table(results[64].data, ["norm, batch", "rate of 64", "% right", "mean loss of epoch 1"], rows)


def plots(found: Results) -> dict[str, Figure]:
    figure, axes = panels(2, width=6.2, sharey=True)
    results = by_batch(found)
    for each, batch in zip(axes, (BATCHES[0], BATCHES[-1]), strict=True):
        for i, arm in enumerate(TRIED):
            if arm in results[batch].arms(ACCURACY):
                curve = results[batch].curve(arm, ACCURACY)
                each.plot(range(1, len(curve) + 1), curve, "o-", color=f"C{i}", label=arm)
        each.set_title(f"batches of {batch}" if batch > 1 else "single images")
    axes[0].set_ylabel("% of the test right")
    whole(axes)
    legend(figure, 2)
    figure.suptitle(f"A conv net with each norm, at its best rate\n{results[64].data.rsplit(', batches', 1)[0]}")
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__, experiment(epochs=4, images=4000)), measure, report, plots))
