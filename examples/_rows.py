"""Digits read row by row: the recurrent layers to compare, how they train, and layer norm in a Python loop of cells."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import normkernels as nk

WIDTH = 64
TRAINED = 1024  # images
PLAIN_LSTM, LN_LSTM, PLAIN_RNN, LN_RNN = "torch.nn.LSTM", "LayerNormLSTM", "torch.nn.RNN", "LayerNormRNN"
BN_RNN, BN_FIRST = "BatchNormRNN", "BatchNormRNN, as first tried"


@dataclass(frozen=True)
class Reading:
    """How the digits are read, and how to train; ``seeds``: runs of each arm at each of the learning rates."""

    name: str
    numbers: int  # of a step: a row has 8, a pixel is 1
    batch: int
    epochs: int
    seeds: int
    rates: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.name}, batches of {self.batch}"


@dataclass(frozen=True)
class Run:
    """The loss of each step, and the shares that come out right; ``by_batch``: of the test, in training mode."""

    losses: list[float]
    validation: float
    test: float
    by_batch: float


def arms(backend: str | None) -> dict[str, Callable[..., nn.Module]]:
    """By name what makes the layer, as torch.nn.LSTM(...) does; the last one is what was tried first."""
    return {
        PLAIN_LSTM: nn.LSTM,
        LN_LSTM: partial(nk.LayerNormLSTM, backend=backend),
        PLAIN_RNN: nn.RNN,
        LN_RNN: partial(nk.LayerNormRNN, backend=backend),
        BN_RNN: partial(nk.BatchNormRNN, backend=backend),
        BN_FIRST: partial(nk.BatchNormRNN, norm_terms="sum", max_steps=1, gain=1.0, backend=backend),
    }


class Reader(nn.Module):
    """A recurrent layer, and a linear classifier of its last state."""

    def __init__(self, layer: Callable[..., nn.Module], numbers: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.head = layer(numbers, WIDTH, batch_first=True), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


@cache
def parts(numbers: int, device: str) -> list[tuple[Tensor, Tensor]]:
    """Sequences (images, steps, numbers) and labels: to train with, to choose by, and to test; shuffled once."""
    found, sizes = load_digits(), [TRAINED, 384, 384]  # even batches; five images are left over
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))[: sum(sizes)]
    images = torch.tensor(found.data, dtype=torch.float32)[order].unflatten(1, (-1, numbers)) / 16
    labels = torch.tensor(found.target)[order]
    return list(zip(*(t.to(device).split(sizes) for t in (images, labels)), strict=True))


def learn(reading: Reading, arm: str, rate: float, seed: int, device: str, backend: str | None) -> Run:
    """Plain SGD from the seed's weights on the seed's batches."""
    (images, labels), validation, test = parts(reading.numbers, device)
    model = Reader(arms(backend)[arm], reading.numbers, seed).to(device)
    optimizer, losses = torch.optim.SGD(model.parameters(), rate), []
    order = torch.Generator().manual_seed(seed)
    for _ in range(reading.epochs):
        for rows in torch.randperm(TRAINED, generator=order).to(device).split(reading.batch):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    by_batch = right(deepcopy(model).train(), test, reading.batch)  # a copy, for batch norm goes on tracking
    model.eval()
    return Run(losses, right(model, validation, reading.batch), right(model, test, reading.batch), by_batch)


@torch.no_grad()
def right(model: Reader, part: tuple[Tensor, Tensor], batch: int) -> float:
    """The share of a part that comes out right."""
    images, labels = part
    answers = torch.cat([model(x).argmax(1) for x in images.split(batch)])
    return (answers == labels).float().mean().item()


class LoopLSTM(nn.Module):
    """An LSTM with torch.nn.LayerNorm as it is written without a kernel: a cell, and a loop over the steps."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.ih = nn.Linear(numbers, 4 * width, bias=False)
        self.hh = nn.Linear(width, 4 * width, bias=False)
        self.norm_ih, self.norm_hh = nn.LayerNorm(4 * width), nn.LayerNorm(4 * width)
        self.norm_cell = nn.LayerNorm(width)

    def cell(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.norm_ih(self.ih(x)) + self.norm_hh(self.hh(h))
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * self.norm_cell(c).tanh(), c

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = c = x.new_zeros(x.shape[1], self.hh.in_features)
        ys = []
        for step in x:
            h, c = self.cell(step, h, c)
            ys.append(h)
        return torch.stack(ys), (h, c)

    def like(self, layer: nk.LayerNormLSTM) -> dict[nn.Parameter, nn.Parameter]:
        """Take over the layer's values; ours, and the layer's parameter that it stands for."""
        modules = {"ih": self.norm_ih, "hh": self.norm_hh, "cell": self.norm_cell}
        pairs = {self.ih.weight: layer.weight_ih_l0, self.hh.weight: layer.weight_hh_l0}
        for name, norm in modules.items():
            bias = layer.norm_bias_cell_l0 if name == "cell" else getattr(layer, f"bias_{name}_l0")
            pairs |= {norm.weight: getattr(layer, f"norm_weight_{name}_l0"), norm.bias: bias}
        with torch.no_grad():
            for mine, theirs in pairs.items():
                mine.copy_(theirs)
        return pairs
