"""Online norm over the samples of all processes, one process's after the other's.

Forward the samples of a process are one element of a monoid, a weight with a mean and a variance; backward they are one
affine map of the accumulators. Each process gathers those of all and starts from what the ones before it leave, as
docs/online_norm.md has it for runs of samples.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from normkernels._backends.reference.online_norm import counts
from normkernels.distributed.statistics import gathered, rank
from normkernels.ops._buffers import planes
from normkernels.ops._online_norm_recipe import OnlineNormRecipe, Settings, backward
from normkernels.ops._state import accumulate
from normkernels.ops.batch_norm import batch_norm_moments


def element(input: Tensor, rates: Tensor, dtype: torch.dtype, backend: str | None) -> Tensor:
    """(Z, M, S) of the samples here, (3, C) float64: how much they weigh, and their mean and variance."""
    x, shape = planes(input).contiguous(), input.shape[:2]
    mean, var = (x.new_empty(shape, dtype=dtype) for _ in range(2))
    batch_norm_moments(x.view(1, shape.numel(), x.shape[2]), mean.view(-1), var.view(-1), False, backend)
    seen = counts(4 * (var + mean * mean))
    rate = rates[:, None] * seen
    weight = rate * _product_after(1 - rate)
    total = weight.sum(0)
    share = weight / torch.where(total > 0, total, 1)
    mean, var = (torch.where(seen, t.double(), 0) for t in (mean, var))
    merged = (share * mean).sum(0)
    return torch.stack([total, merged, (share * (var + (mean - merged).square())).sum(0)])


def joined(state: Iterable[Tensor], elements: Tensor) -> list[Tensor]:
    """Mean and variance after the elements (W, 3, C), in their order."""
    mean, var = (t.double() for t in state)
    for Z, M, S in elements:
        d = M - mean
        mean, var = mean + Z * d, var + Z * (S - var) + Z * (1 - Z) * d.square()
    return [mean, var]


def affine_map(input: Tensor, tables: list[Any], dx: Tensor, added: list[Tensor], settings: Settings) -> Tensor:
    """What the samples here make of the accumulators e, u: e' = a e + f and u' = b e + c u + g; (a, b, c, f, g) (5, C).

    ``dx``, ``added``: of a backward that started from accumulators of 0. Where a sample is not finite its dx is not,
    and it moves nothing.
    """
    mean, rstd, xhat, square, _ = tables
    if xhat is None:  # a sample of a channel is one value
        xhat = (input.reshape(mean.shape).to(mean.dtype) - mean) * rstd
        square = xhat.square()
    xhat, square, rstd = (t.double() for t in (xhat, square, rstd))
    seen = counts(square, planes(dx).sum(2, dtype=mean.dtype))
    p = torch.full_like(square, 1 - settings.alpha_bkw)
    onto = torch.minimum(p, 1 / square) if settings.stable else p
    a, b, c = (torch.where(seen, t, e) for t, e in ((1 - onto * square, 1), (-onto * xhat * rstd, 0), (1 - p, 1)))
    before = torch.cat([torch.ones_like(a[:1]), a.cumprod(0)[:-1]]) if len(a) else a
    return torch.stack([a.prod(0), (_product_after(c) * b * before).sum(0), c.prod(0), *(t.double() for t in added)])


def mapped(state: Iterable[Tensor], maps: Tensor) -> list[Tensor]:
    """The accumulators after the maps (W, 5, C), in their order."""
    e, u = (t.double() for t in state)
    for a, b, c, f, g in maps:
        e, u = a * e + f, b * e + c * u + g
    return [e, u]


def _product_after(factors: Tensor) -> Tensor:
    """Of factors (N, C), for each n the product of those after it."""
    if len(factors) == 0:
        return factors
    return torch.cat([factors.flip(0).cumprod(0).flip(0)[1:], torch.ones_like(factors[:1])])


class SpanningOnlineNorm(torch.autograd.Function):
    """The recipe's outputs and gradients from a state of this process's own; the accumulators move by all maps."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, skip: Tensor | None, weight: Tensor | None, bias: Tensor | None, mean: Tensor,
        var: Tensor, rates: Any, epsilon_y: Tensor, epsilon_1: Tensor, settings: Settings, group: Any,
    ) -> Tensor:  # fmt: skip
        (y, *_), kept = OnlineNormRecipe.run(
            input, skip, weight, bias, mean, var, rates, epsilon_y, epsilon_1, settings
        )  # fmt: skip
        ctx.save_for_backward(*kept)
        ctx.accumulators, ctx.settings, ctx.group = [epsilon_y, epsilon_1], settings, group
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        input, *_, mean, _, _, _, _ = kept = ctx.saved_tensors
        settings, group, grads = ctx.settings, ctx.group, []

        def run(state):
            nothing = [torch.zeros_like(t, dtype=mean.dtype) for t in state]
            (dx, *_), added = backward(settings, kept, dy, nothing, ctx.needs_input_grad)
            maps = gathered(affine_map(input, list(kept[4:]), dx, added, settings), group)
            met = [t.to(mean.dtype) for t in mapped(state, maps[: rank(group)])]
            grads[:], _ = backward(settings, kept, dy, met, ctx.needs_input_grad)
            return mapped(state, maps)

        accumulate(ctx, ctx.accumulators, run)
        if settings.activation == "identity" and ctx.needs_input_grad[1]:
            grads[1] = dy
        return *grads, None, None, None, None, None, None, None
