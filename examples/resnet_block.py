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
gradients = [[p.grad for p in model.parameters() if p.grad is not None] for model in (plain, block)]
apart = [(a - b).abs().max() / a.abs().max() for a, b in zip(*gradients, strict=True)]
print(f"largest difference of a gradient, relative: {max(apart):.1e}")
variances = [dict(model.named_buffers())["bn2.running_var"] for model in (plain, block)]
print(f"largest difference of running statistics: {(variances[0] - variances[1]).abs().max():.1e}")
