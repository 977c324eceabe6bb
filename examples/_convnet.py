"""The residual conv net of the conv net example: model and training."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn

WIDTHS = (1, 32, 64, 64, 64)  # channels of the images, then of each convolution
BATCH, EPOCHS, RATE = 64, 8, 0.05


class Twin(nn.Module):
    """A norm of torch.nn, then the skip connection and ReLU as operations of their own."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        y = self.norm(input)
        return torch.relu(y if skip is None else y + skip)


class ConvNet(nn.Module):
    """Four 3x3 convolutions with norm and ReLU; the second halves the image, the last two are a residual block."""

    def __init__(
        self, norm: Callable[[int], nn.Module], seed: int, widths: tuple[int, ...] = WIDTHS, classes: int = 10
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convs = [nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths)]
        convs[1].stride = (2, 2)
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(map(norm, widths[1:]))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.convs[0](x))
        block = self.norms[1](self.convs[1](x))
        x = self.norms[2](self.convs[2](block))
        x = self.norms[3](self.convs[3](x), block)  # norm(input, skip)
        return self.head(x.mean((2, 3)))


@dataclass(frozen=True)
class Data:
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Run:
    """The loss of each training step, the median seconds of one, and the share of test images that come out right."""

    losses: Tensor
    seconds: float
    accuracy: float


def train(models: list[ConvNet], training: Data, test: Data, seed: int) -> list[Run]:
    """SGD with momentum and a rate that falls to 0; the models take turns, step by step, on the same batches."""
    optimizers = [torch.optim.SGD(model.parameters(), RATE, momentum=0.9) for model in models]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS) for optimizer in optimizers]
    losses, seconds = ([[] for _ in models] for _ in range(2))
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(training.labels), generator=order).split(BATCH):
            images, labels = (t[rows.to(t.device)] for t in (training.images, training.labels))
            for i, model in enumerate(models):
                start = time.perf_counter()
                losses[i].append(step(model, optimizers[i], images, labels))
                seconds[i].append(time.perf_counter() - start)
        for schedule in schedules:
            schedule.step()
    right = [accuracy(model, test.images, test.labels) for model in models]
    return [Run(torch.tensor(losses[i]), median(seconds[i]), right[i]) for i in range(len(models))]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    """One step of training, and its loss."""
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()  # waits for the GPU


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """In evaluation mode, which it leaves the model in."""
    return (model.eval()(images).argmax(1) == labels).float().mean().item()
