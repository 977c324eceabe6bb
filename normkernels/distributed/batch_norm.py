"""Batch norm with statistics and gradients of all processes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from normkernels import _checks
from normkernels._backends import requested
from normkernels.distributed.statistics import Moments, gathered, moments
from normkernels.modules._extras import DEFAULTS
from normkernels.ops._buffers import flat
from normkernels.ops._channel_layouts import lies_last, like, view
from normkernels.ops.batch_norm import batch_norm_apply, batch_norm_dx, batch_norm_sums


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    eps: float
    activation: str
    slope: float
    backend: str | None
    group: Any


class SpanningBatchNorm(torch.autograd.Function):
    """y = act((x - mean) rstd w + b + skip), with the gradient of the one batch that all processes have together.

    Gradients of weight and bias are those of this process's samples: adding them up is for who owns the parameters,
    as with any other layer.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, skip: Tensor | None, weight: Tensor | None, bias: Tensor | None, mean: Tensor,
        var: Tensor, count: Tensor, settings: Settings,
    ) -> Tensor:  # fmt: skip
        eps, activation, slope, backend, _ = settings
        last, y = lies_last(input), like(input, lies_last(input))
        x, s, to = (view(t, last, True) for t in (input, skip, y))
        batch_norm_apply(x, s, flat(weight), flat(bias), mean, var, to, eps, activation, slope, last, backend)
        kept = None if activation == "identity" else skip
        ctx.save_for_backward(input, kept, weight, bias, mean, var, count)
        ctx.settings = settings
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        input, skip, weight, bias, mean, var, count = ctx.saved_tensors
        eps, activation, slope, backend, group = ctx.settings
        _, wants_skip, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        last, dx = lies_last(input), like(input, lies_last(input))
        dskip = like(input, last) if skip is not None and wants_skip else None
        g, x, s, to_x, to_s = (view(t, last, True) for t in (dy, input, skip, dx, dskip))
        call, numbers = (g, x, s, flat(weight), flat(bias), mean, var), (eps, activation, slope, last, backend)
        sums = mean.new_empty(2, len(mean))
        batch_norm_sums(*call, *sums, *numbers)
        means = (gathered(sums.double(), group).sum(0) / count.clamp(min=1)).to(sums.dtype)
        batch_norm_dx(*call, *means, to_x, to_s, *numbers)
        dbias = sums[0].to(bias.dtype) if wants_bias else None
        dweight = sums[1].to(weight.dtype) if wants_weight else None
        return dx, dy if activation == "identity" and wants_skip else dskip, dweight, dbias, None, None, None, None


def spanning(
    input: Tensor, skip: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float,
    extras: dict[str, Any], group: Any, found: Moments | None = None,
) -> tuple[Moments, Tensor]:  # fmt: skip
    """(moments of all processes, y)"""
    if eps <= 0:
        _checks.fail("SyncBatchNorm", "eps", "be positive in training", eps)
    extras = DEFAULTS | extras
    backend = requested(extras["backend"], "batch_norm", input)
    activation = _checks.check_activation("SyncBatchNorm", extras["activation"])
    settings = Settings(eps, activation, extras["slope"], backend, group)
    found = found or moments(input, group, backend)
    return found, SpanningBatchNorm.apply(input, skip, weight, bias, *found, settings)
