"""A residual block whose batch norms do the ReLU and the skip connection too, beside the same block of torch's."""

import torch
from rich import print
from torch import nn

import normkernels as nk


def conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + x) in four calls, forward and backward."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels), conv(channels)
        self.bn1, self.bn2 = (nk.BatchNorm2d(channels, activation="relu") for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x))), x)


class Plain(nn.Module):
    """The same of torch.nn, in seven; its state_dict fits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels), conv(channels)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x).relu()


torch.manual_seed(0)
plain, block = Plain(32), Block(32)
block.load_state_dict(plain.state_dict())
x = torch.randn(8, 32, 16, 16)
for model in (plain, block):
    model(x).square().mean().backward()
apart = [
    (a.grad - b.grad).abs().max() / a.grad.abs().max()
    for a, b in zip(plain.parameters(), block.parameters(), strict=True)
]
print(f"largest difference of a gradient, relative: {max(apart):.1e}")
print(f"largest difference of running statistics: {(plain.bn2.running_var - block.bn2.running_var).abs().max():.1e}")
