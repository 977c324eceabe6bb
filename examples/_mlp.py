"""The deep perceptrons of the NormProp example: networks, training side by side, what enters their layers."""

import time
from dataclasses import dataclass, field
from statistics import median

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import normkernels as nk

WIDTH = 64
NONE, BATCH, LAYER, NORMPROP, UNIT_GAIN = "none (Glorot)", "batch norm", "layer norm", "NormProp", "NormProp, gain 1"


@dataclass(frozen=True)
class Data:
    """Digits, every pixel with the mean and variance that it has in the training images."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass
class Run:
    """Accuracy on the test images, median seconds of a step, and what input_means found after each epoch."""

    accuracy: float = 0.0
    seconds: float = 0.0
    means: list[Tensor] = field(default_factory=list)


def digits(device: str) -> Data:
    """1,297 images to learn from, 500 to test with. Three pixels never change: DataNorm sets them to 0."""
    found = load_digits()
    parts = train_test_split(found.data, found.target, test_size=500, stratify=found.target, random_state=0)
    images, test_images = (torch.tensor(part, dtype=torch.float32, device=device) for part in parts[:2])
    labels, test_labels = (torch.tensor(part, device=device) for part in parts[2:])
    norm = nk.DataNorm(images.shape[1], "global").to(device).fit(images)
    return Data(norm(images), labels, norm(test_images), test_labels)


def network(arm: str, depth: int, seed: int, backend: str | None) -> nn.Sequential:
    """Hidden layers of 64 with ReLU, then a plain linear layer; arms start from the same weights."""

    def hidden() -> nn.Module:
        if arm == NONE:
            return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
        if arm in (NORMPROP, UNIT_GAIN):
            gain = "jacobian" if arm == NORMPROP else 1.0
            return nk.NormPropLinear(WIDTH, WIDTH, "relu", gain_init=gain, backend=backend)
        norm = nk.BatchNorm1d if arm == BATCH else nk.LayerNorm
        return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), norm(WIDTH, activation="relu", backend=backend))

    model = nn.Sequential(*(hidden() for _ in range(depth)), nn.Linear(WIDTH, 10))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def train(models: list[nn.Sequential], data: Data, batch: int, rate: float, epochs: int, seed: int) -> list[Run]:
    """SGD with momentum, its rate halved after a half and three quarters; the models take turns on the same batches."""
    total = epochs * (len(data.labels) // batch)  # batches that are full
    optimizers = [torch.optim.SGD(model.parameters(), rate, momentum=0.9) for model in models]
    runs, seconds = [Run() for _ in models], [[] for _ in models]
    order, done = torch.Generator().manual_seed(seed), 0
    for _ in range(epochs):
        shuffled = torch.randperm(len(data.labels), generator=order).to(data.labels.device)
        for rows in shuffled[: total // epochs * batch].split(batch):
            images, labels = data.images[rows], data.labels[rows]
            for model, optimizer, times in zip(models, optimizers, seconds, strict=True):
                optimizer.param_groups[0]["lr"] = rate / 2 ** ((2 * done >= total) + (4 * done >= 3 * total))
                start = time.perf_counter()
                _step(model, optimizer, images, labels)
                times.append(time.perf_counter() - start)
            done += 1
        for model, run in zip(models, runs, strict=True):
            run.means.append(input_means(model, data))
    for model, run, times in zip(models, runs, seconds, strict=True):
        run.accuracy, run.seconds = _accuracy(model, data), median(times)
    return runs


def _step(model: nn.Sequential, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    nk.project_unit_norm_(model)  # filters of length 1 after every step, as in the paper; only NormProp has any
    loss.item()  # waits for the GPU


@torch.no_grad()
def _accuracy(model: nn.Sequential, data: Data) -> float:
    return (model.eval()(data.test_images).argmax(1) == data.test_labels).float().mean().item()


@torch.no_grad()
def input_means(model: nn.Sequential, data: Data) -> Tensor:
    """Mean of every unit that enters hidden layer 2, 3, ... and the last one, over the test images."""
    x, means = data.test_images, []
    for layer in model.eval()[:-1]:
        x = layer(x)
        means.append(x.mean(0))
    model.train()
    return torch.stack(means)
