"""A step of training, and what comes out right."""

import torch
from torch import Tensor, nn


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    """One step of training, and its loss."""
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()  # waits for the GPU


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch: int | None = None) -> float:
    """The share that comes out right in the mode that the model is in; of all at once, or batch by batch."""
    answers = torch.cat([model(x).argmax(1) for x in images.split(batch or len(images))])
    return (answers == labels).float().mean().item()
