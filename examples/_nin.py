"""The paper's Network in Network for 3x32x32, without a norm, with batch norm, or with NormProp, and its optimizer."""

from collections.abc import Callable

from torch import nn
from torch.optim import SGD, Optimizer

import normkernels as nk

NONE, TORCH, OURS, NORMPROP = VARIANTS = ("none", "batch_norm", "ours", "normprop")
RATE, LARGE_BATCH_RATE, RATE_WITHOUT_NORM = 0.05, 0.08, 0.0001  # the paper's; without a norm larger ones diverged
DECAY, MOMENTUM = 0.0005, 0.9


def network(
    variant: str,
    width: float,
    as_printed: bool,
    channels: int = 3,
    classes: int = 10,
    gain: float | str = "jacobian",
) -> nn.Sequential:
    """9 convolutions of 192, 160 and 96 filters, times ``width``; the last one, of the classes, is plain.

    In print the 5x5 convolution on 8x8 pixels has padding 0 and the 1x1 after it has 2, which makes 48 of 64 positions
    constants; here it is the other way round, unless ``as_printed``.
    """
    layers: list[nn.Module] = []

    def convolution(filters: int, size: int, padding: int = 0) -> None:
        nonlocal channels
        filters = round(width * filters)
        layers.extend(_block(variant, channels, filters, size, padding, gain))
        channels = filters

    convolution(192, 5, 2)
    convolution(160, 1)
    layers.append(nn.MaxPool2d(3, 2, 1))
    convolution(96, 1)
    convolution(192, 5, 2)
    convolution(192, 1)
    layers.append(nn.AvgPool2d(3, 2, 1))
    convolution(192, 1)
    convolution(192, 5, 0 if as_printed else 2)
    convolution(192, 1, 2 if as_printed else 0)
    layers += [_glorot(nn.Conv2d(channels, classes, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)


def _block(variant: str, inputs: int, filters: int, size: int, padding: int, gain: float | str) -> list[nn.Module]:
    """A convolution, its norm and ReLU."""
    if variant == NORMPROP:
        return [nk.NormPropConv2d(inputs, filters, size, padding=padding, activation="relu", gain_init=gain)]
    convolution = _glorot(nn.Conv2d(inputs, filters, size, padding=padding, bias=variant == NONE))
    if variant == OURS:
        return [convolution, nk.BatchNorm2d(filters, activation="relu")]
    norm = [nn.BatchNorm2d(filters)] if variant == TORCH else []
    return [convolution, *norm, nn.ReLU(inplace=True)]


def _glorot(convolution: nn.Conv2d) -> nn.Conv2d:
    """What NormProp's layers start from too."""
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def optimizer(
    model: nn.Module,
    rate: float,
    decay: float = DECAY,
    momentum: float = MOMENTUM,
    kind: Callable[..., Optimizer] = SGD,
) -> Optimizer:
    """Weight decay on everything but the filters of NormProp, whose length is set to 1 after every step anyway."""
    free = [layer.weight for layer in model.modules() if isinstance(layer, nk.NormPropConv2d)]
    rest = [p for p in model.parameters() if not any(p is weight for weight in free)]
    groups = [{"params": rest, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
    extras = {"momentum": momentum} if kind is SGD else {}
    return kind([group for group in groups if group["params"]], lr=rate, **extras)


def scaled(rate: float, batch: int) -> float:
    """The rate of this batch size, from that of 50: in proportion below, the paper's 0.08 / 0.05 from 100 up."""
    return rate * (batch / 50 if batch < 50 else LARGE_BATCH_RATE / RATE if batch >= 100 else 1)
