"""Batch norm of the input's term in a recurrent layer: the rows of each step are an image whose channels lie last."""

import torch
from torch import Tensor

from normkernels.backends import requested
from normkernels.ops._channels import ChannelsFunction, Settings, statistic_dtype
from normkernels.ops._recurrent import Statistics, filled_with
from normkernels.ops.instance_norm import instance_norm_bwd, instance_norm_fwd


def step_norm(
    p: Tensor, rows: list[int], weight: Tensor, bias: Tensor | None, running: Statistics | None, training: bool,
    momentum: float, eps: float, reverse: bool, backend: str | None,
) -> Tensor:  # fmt: skip
    """p, (T, B, columns) or packed with so many rows in each step: each column normalised over the rows of its step."""
    flat, same = p.reshape(-1, p.shape[-1]), len(set(rows)) == 1
    sizes = filled_with(torch.tensor(rows), p.device)
    if not training and running is not None:
        statistics = running.of_steps(len(rows), reverse, statistic_dtype(p))
        mean, var = (t.repeat_interleave(sizes, 0, output_size=len(flat)) for t in statistics)
        y = (flat - mean) * (var + eps).rsqrt() * weight
        return (y if bias is None else y + bias).to(p.dtype).view(p.shape)
    backend = requested(backend, "batch norm of a step")
    settings = Settings(instance_norm_fwd, instance_norm_bwd, False, p.shape[-1], eps, "identity", 0.0, backend)
    ys, found = [], []
    for block in blocks(flat, rows):
        y, *statistics = ChannelsFunction.apply(block.movedim(-1, 1), None, weight, bias, None, None, settings)
        ys.append(y.movedim(1, -1).reshape(flat.shape if same else (-1, p.shape[-1])))
        found.append(statistics)
    if running is not None:
        mean, var = (torch.cat(parts) for parts in zip(*found, strict=True))
        running.update(mean, var, sizes, momentum, reverse)
    return (ys[0] if same else torch.cat(ys)).view(p.shape)


def blocks(flat: Tensor, rows: list[int]) -> list[Tensor]:
    """Runs of steps of as many rows, each as (steps, rows, columns)."""
    found, at = [], 0
    for n in dict.fromkeys(rows):
        steps = rows.count(n)
        found.append(flat[at : at + steps * n].view(steps, n, -1))
        at += steps * n
    return found
