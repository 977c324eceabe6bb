"""Swap the layer norms of a model of torch's for ours, weights and all: the same numbers, and no slower."""

import copy
import statistics
import time

import torch
from rich import print
from torch import nn

import normkernels as nk


def step(model: nn.Module, x: torch.Tensor) -> float:
    """Milliseconds of a training step."""
    start = time.perf_counter()
    model(x).square().mean().backward()
    return 1000 * (time.perf_counter() - start)


torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(256, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
ours, x = copy.deepcopy(theirs), torch.randn(4, 64, 256)
nk.convert(ours)  # in place: the same parameters, hooks and names; nk.revert(ours) is the way back
print(f"largest difference of the outputs: {(ours(x) - theirs(x)).abs().max():.1e}")
times = [(step(theirs, x), step(ours, x)) for _ in range(25)]
print("ms a step, torch.nn's and ours: " + ", ".join(f"{statistics.median(t):.1f}" for t in zip(*times, strict=True)))
