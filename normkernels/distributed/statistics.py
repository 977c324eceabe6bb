"""Moments of a batch that is spread over processes: each has some samples, or none."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._channel_layouts import lies_last, view
from normkernels.ops.batch_norm import batch_norm_moments

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the name until torch 2.13


class Moments(NamedTuple):
    """Of all processes: mean and biased variance (C,), and the number of values of a channel, float64 ()."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def unbiased(self) -> Tensor:
        return (self.var * (self.count / (self.count - 1).clamp(min=1))).to(self.var.dtype)


def spans(group: Any) -> bool:
    """Whether there is another process to ask."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


def rank(group: Any) -> int:
    return dist.get_rank(group)


def gathered(t: Tensor, group: Any) -> Tensor:
    """t of every process, in the order of their ranks: (W, *)."""
    found = t.new_empty(dist.get_world_size(group) * t.numel())
    _all_gather(found, t.flatten(), group)
    return found.view(-1, *t.shape)


@torch.no_grad()
def moments(input: Tensor, group: Any, backend: str | None) -> Moments:
    """Merged in float64 and in the order of the ranks, so that every process has the same bits. One exchange."""
    C, last = input.shape[1], lies_last(input)
    mean, var = (input.new_empty(C, dtype=statistic_dtype(input)) for _ in range(2))
    batch_norm_moments(view(input, last, True), mean, var, last, backend)
    count = torch.full((1,), input.numel() // C, dtype=torch.float64, device=input.device)
    means, variances, counts = gathered(torch.cat([mean.double(), var.double(), count]), group).split([C, C, 1], dim=1)
    total = counts.sum()
    share = counts / total.clamp(min=1)
    merged = (share * means).sum(0)
    spread = (share * (variances + (means - merged).square())).sum(0)
    return Moments(merged.to(mean.dtype), spread.to(var.dtype), total)
