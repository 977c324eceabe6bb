"""Swap the layer norms of a model of torch's for ours, weights and all: the same numbers, and no slower."""

import copy
import statistics
import time

import torch
from rich import print
from torch import nn

import normkernels as nk


def swapped(module: nn.Module) -> nn.Module:
    """A copy in which every torch.nn.LayerNorm is ours, with the same parameters."""
    module = copy.deepcopy(module)
    for name, child in module.named_children():
        if type(child) is nn.LayerNorm:
            ours = nk.LayerNorm(child.normalized_shape, child.eps, child.elementwise_affine, child.bias is not None)
            ours.load_state_dict(child.state_dict())
            setattr(module, name, ours)
        else:
            setattr(module, name, swapped(child))
    return module


def step(model: nn.Module, x: torch.Tensor) -> float:
    """Milliseconds of a training step."""
    start = time.perf_counter()
    model(x).square().mean().backward()
    return 1000 * (time.perf_counter() - start)


torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(256, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
ours, x = swapped(theirs), torch.randn(4, 64, 256)
print(f"{sum(isinstance(m, nk.LayerNorm) for m in ours.modules())} layer norms swapped")
print(f"largest difference of the outputs: {(ours(x) - theirs(x)).abs().max():.1e}")
times = [(step(theirs, x), step(ours, x)) for _ in range(25)]
print("ms a step, torch.nn's and ours: " + ", ".join(f"{statistics.median(t):.1f}" for t in zip(*times, strict=True)))
