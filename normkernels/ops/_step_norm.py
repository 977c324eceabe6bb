"""Batch norm of the input's term in a recurrent layer: the rows of each step are an image whose channels lie last."""

from typing import Any

import torch
from torch import Tensor

from normkernels._backends import requested
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._channels import ChannelsRecipe, Settings
from normkernels.ops._sequence import filled_with, runs_of
from normkernels.ops._step_statistics import Statistics
from normkernels.ops._ways import call, seen_whole
from normkernels.ops.instance_norm import instance_norm_bwd, instance_norm_fwd


def step_norm(
    p: Tensor, sizes: Tensor | None, weight: Tensor | None, bias: Tensor | None, running: Statistics | None,
    training: bool, momentum: float, eps: float, reverse: bool, backend: str | None,
) -> Tensor:  # fmt: skip
    """p, (T, B, columns) or packed with so many rows in each step: each column normalised over the rows of its step."""
    if not training and running is not None:
        return _with_running(p, sizes, weight, bias, running, eps, reverse)
    ys, found = [], []
    for block in [p] if sizes is None else blocks(p, sizes):
        y, *statistics = norm_of_steps(block, weight, bias, eps, backend)
        ys.append(y if sizes is None else y.reshape(-1, p.shape[-1]))
        found.append(statistics)
    if running is not None and p.numel():
        mean, var = (torch.cat(parts) for parts in zip(*found, strict=True))
        rows = torch.full((len(p),), p.shape[1], device=p.device) if sizes is None else sizes
        running.update(mean, var, rows, momentum, reverse)
    return ys[0] if len(ys) == 1 else torch.cat(ys)


@seen_whole
def norm_of_steps(p: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, backend: str | None) -> Any:
    """y, and mean and variance of each step of p, (steps, rows, columns)."""
    backend = requested(backend, "batch norm of a step", p)
    settings = Settings(instance_norm_fwd, instance_norm_bwd, False, p.shape[-1], eps, "identity", 0.0, backend)
    y, *statistics = call(ChannelsRecipe, p.movedim(-1, 1), None, weight, bias, None, None, settings)
    return y.movedim(1, -1), *statistics


def _with_running(p, sizes, weight, bias, running: Statistics, eps: float, reverse: bool) -> Tensor:
    steps = len(p) if sizes is None else len(sizes)
    mean, var = running.of_steps(steps, reverse, statistic_dtype(p))
    if sizes is None:
        mean, var = mean.unsqueeze(1), var.unsqueeze(1)
    else:
        rows = filled_with(sizes, p.device)
        mean, var = (t.repeat_interleave(rows, 0, output_size=len(p)) for t in (mean, var))
    y = (p - mean) * (var + eps).rsqrt()
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(p.dtype)


def blocks(packed: Tensor, sizes: Tensor) -> list[Tensor]:
    """Runs of steps of as many rows, each as (steps, rows, columns)."""
    found, at = [], 0
    for rows, steps in runs_of(sizes):
        found.append(packed[at : at + steps * rows].view(steps, rows, -1))
        at += steps * rows
    return found
