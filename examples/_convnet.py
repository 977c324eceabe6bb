"""A small residual conv net."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class Twin(nn.Module):
    """A norm of torch.nn, or none, then the skip connection and ReLU as operations of their own."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        y = self.norm(input)
        return torch.relu(y if skip is None else y + skip)


class ConvNet(nn.Module):
    """Four 3x3 convolutions with norm and ReLU; the second halves the image, the last two are a residual block."""

    def __init__(self, norm: Callable[[int], nn.Module], seed: int, widths: tuple[int, ...], classes: int) -> None:
        """``widths``: channels of the images, then of each convolution."""
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
