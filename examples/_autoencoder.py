"""The tied-weight ReLU auto-encoder of the two auto-encoder examples: model and training."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from _common import console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

import normkernels as nk

HIDDEN = 128
EPOCHS = 2


class BiasReLU(torch.nn.Module):
    """The plain network's block between the two products."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(HIDDEN))

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(input + self.bias)


def fused(backend: str | None = None) -> torch.nn.Module:
    """Layer norm and ReLU in one kernel."""
    return nk.LayerNorm(HIDDEN, activation="relu", backend=backend)


class AutoEncoder(torch.nn.Module):
    """logits = block(x Wᵀ) W + c, W Glorot-uniform from ``seed``; the cost is summed over units, averaged over rows."""

    def __init__(self, visible: int, block: torch.nn.Module, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weight = torch.nn.Parameter((torch.rand(HIDDEN, visible) * 2 - 1) * (6 / (visible + HIDDEN)) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(visible))
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x @ self.weight.T) @ self.weight + self.bias

    def cost(self, x: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(self(x), x, reduction="sum") / len(x)


@dataclass(frozen=True)
class Setting:
    """One comparison, and its bars: the highest LN/plain cost of each epoch, and the least LN/plain ‖W‖."""

    batch: int
    lr: float
    seeds: tuple[int, ...]
    ratios: tuple[float, ...] = (1.0, 1.0)
    growth: float = 0.0

    def __str__(self) -> str:
        return f"B={self.batch} lr={self.lr}"


@dataclass(frozen=True)
class Run:
    """One training: the mean cost of each epoch, and the cost and ‖W‖ of each step."""

    model: AutoEncoder
    costs: list[float]
    losses: Tensor
    norms: Tensor


def steps(model: AutoEncoder, data: Tensor, setting: Setting, seed: int, epochs: int) -> Iterator[tuple[Tensor, int]]:
    """Plain SGD at a constant rate; yields the cost and the rows of each step once the step is taken."""
    optimizer = torch.optim.SGD(model.parameters(), setting.lr)
    order = torch.Generator().manual_seed(seed + 1)
    for _ in range(epochs):
        for rows in torch.randperm(len(data), generator=order).to(data.device).split(setting.batch):
            loss = model.cost(data[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.detach(), len(rows)


def train(model: AutoEncoder, data: Tensor, setting: Setting, seed: int, progress: Progress, task) -> Run:
    losses, norms, rows = [], [], []
    for loss, count in steps(model, data, setting, seed, EPOCHS):
        losses.append(loss)
        norms.append(model.weight.detach().norm())
        rows.append(count)
        progress.update(task, advance=count)
    losses, norms = torch.stack(losses).cpu(), torch.stack(norms).cpu()
    totals = (losses * torch.tensor(rows)).view(EPOCHS, -1).sum(1)
    return Run(model, (totals / len(data)).tolist(), losses, norms)


def compare(data: Tensor, settings: list[Setting], backend: str | None) -> dict[Setting, list[tuple[Run, Run]]]:
    """(plain, fused layer norm) for each seed of each setting, from the same weights, in the same order of samples."""
    columns = TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    results = {}
    with Progress(*columns, console=console, transient=True) as progress:
        for setting in settings:
            results[setting] = []
            for seed in setting.seeds:
                pair = []
                for name, block in (("plain", BiasReLU()), ("layer norm", fused(backend))):
                    task = progress.add_task(f"{setting} seed {seed} {name}", total=EPOCHS * len(data))
                    model = AutoEncoder(data.shape[1], block, seed).to(data.device)
                    pair.append(train(model, data, setting, seed, progress, task))
                    progress.remove_task(task)
                results[setting].append(tuple(pair))
    return results
