"""What the NormProp paper's figures compare, and one training of each: a small Network in Network on small images."""

from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from _data import Images
from _nin import DECAY, MOMENTUM, NONE, NORMPROP, OURS, RATE_WITHOUT_NORM, network, optimizer, scaled, step
from torch import Tensor, nn

import normkernels as nk

SIDE, WIDTH = 16, 0.125
ACCURACY, LOSS = "% right", "training loss"


@dataclass(frozen=True)
class Setting:
    """``mode`` of the data norm; ``halvings`` of the rate, evenly spread; ``dropout`` in front of the last layer."""

    variant: str = NORMPROP
    mode: str = "global"
    batch: int = 50
    halvings: int = 3
    shuffled: bool = True
    decay: float = DECAY
    momentum: float = MOMENTUM
    gain: float | str = "jacobian"
    dropout: float = 0.0
    rate: float = 1.0  # times that of its batch size


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


@dataclass
class Run:
    """Of each epoch the % right, the mean loss, and the mean of every unit that enters layer 2, 3, ..."""

    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    means: list[list[Tensor]] = field(default_factory=list)


def small(images: Tensor) -> Tensor:
    """Pixels from 0 to 1, at most 16x16 of them."""
    pixels = images.float() / 255
    return nn.functional.adaptive_avg_pool2d(pixels, SIDE) if pixels.shape[-1] > SIDE else pixels


def learn(name: str, data: Images, rate: float, epochs: int, seed: int) -> Generator[None, None, Run]:
    """By the paper's recipe, but for what the setting changes."""
    s, y, run = SETTINGS[name], data.labels, Run()
    x, test = small(data.images), small(data.test_images)
    torch.manual_seed(seed)
    norm = nk.DataNorm(tuple(x.shape[1:]), s.mode)
    norm = norm.fit(x) if s.mode == "global" else norm
    model = network(s.variant, WIDTH, False, None, x.shape[1], int(y.max()) + 1, s.gain)
    if s.dropout:
        model.insert(len(model) - 3, nn.Dropout(s.dropout))
    rate = RATE_WITHOUT_NORM if s.variant == NONE else scaled(rate, s.batch) * s.rate
    found, order = optimizer(model, rate, s.decay, s.momentum), torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for group in found.param_groups:
            group["lr"] = rate / 2 ** (epoch * (s.halvings + 1) // epochs)
        rows, losses = torch.randperm(len(y), generator=order) if s.shuffled else torch.arange(len(y)), []
        for batch in rows[: len(y) // s.batch * s.batch].split(s.batch):
            losses.append(step(model, found, norm(x[batch]), y[batch]))
            yield
        run.loss.append(sum(losses) / len(losses))
        _look(model.eval(), norm.eval(), test, data.test_labels, run, name in FOLLOWED)
        model.train(), norm.train()
    return run


@torch.no_grad()
def _look(model: nn.Sequential, norm: nn.Module, x: Tensor, y: Tensor, run: Run, followed: bool) -> None:
    """At the test images: how many are right, and the means of what enters each convolution but the first."""
    means, h = [], norm(x)
    for i, layer in enumerate(model):
        if i and isinstance(layer, nn.Conv2d | nk.NormPropConv2d):
            means.append(h.mean((0, 2, 3)))
        h = layer(h)
    run.accuracy.append(100 * (h.argmax(1) == y).float().mean().item())
    if followed:
        run.means.append(means)
