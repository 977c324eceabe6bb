"""Streaming Normalization: scales of several powers, memories of several weights, from first and from later states."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normkernels.cases import Sample
from normkernels.cases._channels import OPTIONAL, Norm, affine, constants_torch, last, skip_and_activate
from normkernels.functional import streaming_norm


def arrive(found: Tensor, long_term: Tensor, short_term: Tensor, counts: Tensor, weights: Sequence[float]) -> Tensor:
    """What is used of statistics, or of gradients, that arrive; the short term and the counts are updated."""
    short = short_term + (found - short_term) / (counts[0] + 1)
    long = torch.where(counts[1] > 0, long_term, short)
    short_term.copy_(short)
    counts[0] += 1
    terms = [weight * term for weight, term in zip(weights, (long, short, found), strict=False)]
    return sum(terms[1:], terms[0])


class Streamed(torch.autograd.Function):
    """Streamed statistics in place of found ones (2, C), and streamed gradients in place of theirs."""

    @staticmethod
    def forward(
        ctx: Any, found: Tensor, long_term: Tensor, short_term: Tensor, counts: Tensor, alpha: Sequence[float],
        beta: Sequence[float],
    ) -> Tensor:  # fmt: skip
        ctx.memory = long_term[2:], short_term[2:], counts[1], beta
        return arrive(found, long_term[:2], short_term[:2], counts[0], alpha)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return arrive(grad, *ctx.memory), None, None, None, None, None


def streaming_norm_torch(
    input: Tensor, long_term: Tensor, short_term: Tensor, counts: Tensor, training: bool = False,
    alpha: Sequence[float] = (0.7, 0.3), beta: Sequence[float] = (0.7, 0.0, 0.3), p: float = 2.0, eps: float = 1e-5,
    weight: Tensor | None = None, bias: Tensor | None = None, **after: Any,
) -> Tensor:  # fmt: skip
    """The statistics by autograd, and between them and their use the memory."""
    if not training:
        arrivals, updates = counts[0]
        mean, scale = torch.where((updates > 0) | (arrivals == 0), long_term[:2], short_term[:2])
        return constants_torch(input, mean, scale, weight, bias, **after)
    x = input.reshape(*input.shape[:2], -1).to(torch.promote_types(input.dtype, torch.float32))
    mean = x.mean((0, 2))
    found = torch.stack([mean, ((x - mean[:, None]).abs().pow(p).mean((0, 2)) + eps).pow(1 / p)])
    used = Streamed.apply(found, long_term, short_term, counts, alpha, beta) if x.numel() else found
    y = (x - used[0, :, None]) / used[1, :, None]
    return skip_and_activate(affine(y, weight, bias).view(input.shape).to(input.dtype), **after)


def _state(mean: Tensor, var: Tensor, draw) -> dict[str, Tensor]:
    C, std = len(mean), torch.sqrt(var + 1e-5)

    def term() -> Tensor:
        return torch.stack([mean + std * draw(C) / 2, std * torch.exp(draw(C) / 4), draw(C), draw(C)])

    return {"long_term": term(), "short_term": term(), "counts": draw(2, 2).mul(2).abs().round()}


NORM = Norm(
    "streaming_norm",
    statistics=lambda rank: (0, *range(2, rank)),
    arguments=lambda channels: {"training": True},
    state=_state,
)


def _samples() -> list[Sample]:
    sample, x = NORM.sample, NORM.x
    image = x(3, 20, 5, 7)
    forward, current = {"alpha": (0.5, 0.5), "beta": (0.5, 0.5, 0.0)}, {"alpha": (0.0, 1.0), "beta": (0.0, 0.0, 1.0)}
    return [
        *NORM.samples(),
        sample("37x33", x(37, 33), OPTIONAL, activation="relu"),
        sample("250x3", x(250, 3), p=1.0),
        sample("7x33x1x1", x(7, 33, 1, 1), p=3.0),
        *(sample(f"3x20x5x7-p-{p}", image, OPTIONAL, activation="gelu", p=p) for p in (1.0, 1.5, 3.0)),
        *(sample(f"channels_last-p-{p}", last(image), p=p) for p in (1.0, 1.5, 3.0)),
        *(sample(f"3x20x5x7-p-{p}-plain", image, (), p=p, **forward) for p in (1.0, 2.0)),
        sample("37x33-p-1.5", x(37, 33), p=1.5, **forward),
        sample("3x20x5x7-forward", image, **forward),
        sample("3x20x5x7-current", image, **current),
        sample("channels_last-current", last(image), p=1.0, **current),
        sample("3x20x5x7-long", image, alpha=(1.0, 0.0), beta=(1.0, 0.0, 0.0)),
        sample("3x20x5x7-eval", image, OPTIONAL, activation="relu", training=False),
        sample("channels_last-eval", last(image), OPTIONAL, activation="silu", training=False),
        sample("plain-eval", image, (), training=False),
        sample("5x33-eval", x(5, 33), training=False),
        sample("1x33-eval", x(1, 33), ("skip", "bias"), training=False),
    ]


OP = NORM.op(streaming_norm, streaming_norm_torch, _samples(), ("long_term", "short_term", "counts"))
