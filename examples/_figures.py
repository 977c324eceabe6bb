"""One training of the NormProp paper: a small Network in Network on small images, by its recipe or a change of it."""

from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from _data import Images
from _nin import DECAY, MOMENTUM, NORMPROP, network, optimizer
from _results import Number, Results
from _training import accuracy, step
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

import normkernels as nk

SIDE, WIDTH, BATCH = 16, 0.125, 50
ACCURACY, LOSS, TRAINED = "% right", "training loss", "% right in training"
BY_BATCH = "% right, batch statistics"
MEAN, DRIFT = "|mean| entering layer {}", "change of the mean entering layer {}"
UNIT = "mean of one unit entering layer {}"
LAYERS = range(2, 10)


@dataclass(frozen=True)
class Setting:
    """``mode`` of the data norm; ``halvings`` of the rate, evenly spread; ``dropout`` in front of the last layer;
    ``unit``: filters get length 1 after every step."""

    variant: str = NORMPROP
    mode: str = "global"
    batch: int = BATCH
    halvings: int = 3
    shuffled: bool = True
    decay: float = DECAY
    momentum: float = MOMENTUM
    gain: float | str = "jacobian"
    dropout: float = 0.0
    unit: bool = True
    rate: float = 1.0  # times that of its batch size
    kind: Callable[..., Optimizer] = SGD


@dataclass
class Run:
    """Of each epoch the % right (with batch statistics too), the loss, and the mean of each unit that enters layers."""

    accuracy: list[float] = field(default_factory=list)
    by_batch: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    means: list[list[Tensor]] = field(default_factory=list)
    trained: float = 0.0


def small(images: Tensor) -> Tensor:
    """Pixels from 0 to 1, at most 16x16 of them."""
    pixels = images.float() / 255
    return nn.functional.adaptive_avg_pool2d(pixels, SIDE) if pixels.shape[-1] > SIDE else pixels


def learn(s: Setting, data: Images, rate: float, epochs: int, seed: int, followed: bool) -> Generator[None, None, Run]:
    """By the paper's recipe, but for what the setting changes; ``followed``: look into the layers as well."""
    y, run = data.labels, Run()
    x, test = small(data.images), small(data.test_images)
    torch.manual_seed(seed)
    norm = nk.DataNorm(tuple(x.shape[1:]), s.mode).to(x.device)
    norm = norm.fit(x) if s.mode == "global" else norm
    model = network(s.variant, WIDTH, False, x.shape[1], int(y.max()) + 1, s.gain)
    if s.dropout:
        model.insert(len(model) - 3, nn.Dropout(s.dropout))
    found = optimizer(model.to(x.device), rate, s.decay, s.momentum, s.kind)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for group in found.param_groups:
            group["lr"] = rate / 2 ** (epoch * (s.halvings + 1) // epochs)
        rows, losses = torch.randperm(len(y), generator=order) if s.shuffled else torch.arange(len(y)), []
        for batch in rows[: len(y) // s.batch * s.batch].split(s.batch):
            losses.append(step(model, found, norm(x[batch]), y[batch]))
            if s.unit:
                nk.project_unit_norm_(model)
            yield
        run.loss.append(sum(losses) / len(losses))
        _look(model, norm.eval(), test, data.test_labels, run, followed)
        norm.train()
    run.trained = 100 * accuracy(nn.Sequential(norm, model).eval(), x, y, 500)
    return run


@torch.no_grad()
def _look(model: nn.Sequential, norm: nn.Module, x: Tensor, y: Tensor, run: Run, followed: bool) -> None:
    """At the test images: how many are right, and the means of what enters each convolution but the first."""
    means, h = [], norm(x)
    if followed:  # a copy, for batch norm goes on tracking
        run.by_batch.append(100 * accuracy(deepcopy(model).train(), h, y, BATCH))
    model.eval()
    for i, layer in enumerate(model):
        if i and isinstance(layer, nn.Conv2d | nk.NormPropConv2d):
            means.append(h.mean((0, 2, 3)))
        h = layer(h)
    model.train()
    run.accuracy.append(100 * (h.argmax(1) == y).float().mean().item())
    if followed:
        run.means.append(means)


def numbers(data: Images, found: dict[tuple[str, int], Run]) -> list[Number]:
    """``at`` is the epoch; the unit of a layer is chosen at random, once."""
    lines = []
    for (name, seed), got in found.items():
        for quantity, curve in ((ACCURACY, got.accuracy), (LOSS, got.loss), (BY_BATCH, got.by_batch)):
            lines += [Number(data.name, name, quantity, v, seed, epoch) for epoch, v in enumerate(curve, 1)]
        lines.append(Number(data.name, name, TRAINED, got.trained, seed))
        for epoch, means in enumerate(got.means, 1):
            for layer, mean in zip(LAYERS, means, strict=True):
                lines.append(Number(data.name, name, MEAN.format(layer), mean.abs().mean().item(), seed, epoch))
                unit = int(torch.randint(len(mean), (), generator=torch.Generator().manual_seed(layer)))
                lines.append(Number(data.name, name, UNIT.format(layer), mean[unit].item(), seed, epoch))
                if epoch > 1:
                    change = (mean - got.means[epoch - 2][layer - 2]).abs().mean().item()
                    lines.append(Number(data.name, name, DRIFT.format(layer), change, seed, epoch))
    return lines


def over(found: Results, name: str, quantity: str, layers: range = LAYERS, last: bool = True) -> float:
    """The mean over layers and seeds of MEAN or DRIFT; of the last epoch, or of all."""
    curves = [found.curve(name, quantity.format(k)) for k in layers]
    return sum(curve[-1] if last else sum(curve) / len(curve) for curve in curves) / len(curves)
