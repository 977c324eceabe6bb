"""The blog's auto-encoder with tied weights, its training, and bags of words for it."""

import hashlib
from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

import normkernels as nk

HIDDEN = 128


class BiasReLU(torch.nn.Module):
    """The plain network's block between the two products."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(HIDDEN))

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(input + self.bias)


class AutoEncoder(torch.nn.Module):
    """logits = block(x Wᵀ) W + c, W Glorot-uniform from ``seed``; the cost is summed over units, averaged over rows."""

    def __init__(self, visible: int, layer_norm: bool, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weight = torch.nn.Parameter((torch.rand(HIDDEN, visible) * 2 - 1) * (6 / (visible + HIDDEN)) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(visible))
        self.block = nk.LayerNorm(HIDDEN, activation="relu") if layer_norm else BiasReLU()

    def codes(self, x: Tensor) -> Tensor:
        return self.block(x @ self.weight.T)

    def forward(self, x: Tensor) -> Tensor:
        return self.codes(x) @ self.weight + self.bias

    def cost(self, x: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(self(x), x, reduction="sum") / len(x)


Curve = list[tuple[float, float]]  # of each epoch the mean cost, and the length of W after it


def learn(
    layer_norm: bool, x: Tensor, batch: int, rate: float, epochs: int, seed: int
) -> Generator[None, None, tuple[Curve, AutoEncoder]]:
    """Plain SGD at a constant rate."""
    model = AutoEncoder(x.shape[1], layer_norm, seed).to(x.device)
    optimizer, order = torch.optim.SGD(model.parameters(), rate), torch.Generator().manual_seed(seed + 1)
    curve = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=order).split(batch):
            loss = model.cost(x[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            yield
        curve.append((total / len(x), model.weight.detach().norm().item()))
    return curve, model


def sparse9() -> Tensor:
    """2,000 bags of words over 1,992 words: 8 Zipf-drawn words of one of 40 topics, and one word of noise."""
    generator = np.random.default_rng(0)
    topics = [generator.choice(1992, 60, replace=False) for _ in range(40)]
    zipf = 1 / np.arange(1, 61)
    zipf /= zipf.sum()
    data = np.zeros((2000, 1992), np.float32)
    for row in data:
        topic = topics[generator.choice(40, 1, replace=False)[0]]
        row[generator.choice(topic, 8, replace=False, p=zipf)] = 1
        row[generator.integers(0, 1992, 1)] = 1
    digest = hashlib.sha256(data.astype(np.uint8).tobytes()).hexdigest()[:16]
    if digest != "79f11f808a5df45d":
        raise RuntimeError(f"sparse9: the data must hash to 79f11f808a5df45d, got {digest}; numpy's streams changed")
    return torch.from_numpy(data)
