"""Streaming norm with the statistics of all processes, and with their gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from normkernels._backends.reference.streaming_norm import deviation, streamed
from normkernels.distributed.statistics import gathered, moments
from normkernels.ops._buffers import flat, planes
from normkernels.ops._channel_layouts import buffers, lies_last, like, view
from normkernels.ops._state import accumulate
from normkernels.ops._streaming_norm_recipe import Settings, streaming_norm_bwd, taken_in
from normkernels.ops.batch_norm import batch_norm_apply, batch_norm_sums


@torch.no_grad()
def statistics(input: Tensor, s: Settings, group: Any) -> tuple[Tensor, Tensor | None, Tensor]:
    """(mean and scale (2, C), what backward needs of the deviations or None, the number of values of a channel).

    One exchange where p is 2, else a second one, of the powers: by torch's ops.
    """
    mean, var, count = moments(input, group, s.backend)
    if s.p == 2:
        return torch.stack([mean, (var + s.eps).sqrt()]), None, count
    v = planes(input).to(mean.dtype) - mean[:, None]
    sums = torch.stack([t.sum((0, 2), dtype=torch.float64) for t in (v.abs().pow(s.p), deviation(v, s.p))])
    powers, away = gathered(sums, group).sum(0) / count.clamp(min=1)
    return torch.stack([mean, (powers + s.eps).pow(1 / s.p).to(mean.dtype)]), away.to(mean.dtype), count


class SpanningStreamingNorm(torch.autograd.Function):
    """y = act((x - m) / scale w + b + skip) with the statistics that are used, and the gradients that are remembered.

    Gradients of weight and bias are those of this process's samples.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, skip: Tensor | None, weight: Tensor | None, bias: Tensor | None, found: Tensor,
        used: Tensor, deviations: Tensor, count: Tensor, memory: Any, settings: Settings, group: Any,
    ) -> Tensor:  # fmt: skip
        last, y = lies_last(input), like(input, lies_last(input))
        x, add, to = (view(t, last, True) for t in (input, skip, y))
        numbers = 0.0, settings.activation, settings.slope, last, settings.backend
        batch_norm_apply(x, add, flat(weight), flat(bias), used[0], used[1].square(), to, *numbers)
        kept = None if settings.activation == "identity" else skip
        ctx.save_for_backward(input, kept, weight, bias, found, used, deviations, count)
        ctx.memory, ctx.settings, ctx.group = memory, settings, group
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        input, skip, weight, bias, found, used, deviations, count = ctx.saved_tensors
        s, wanted, last = ctx.settings, ctx.needs_input_grad, lies_last(input)
        grads = buffers(input, skip, weight, bias, wanted)
        x, g, add, to_x, to_skip = (view(t, last, True) for t in (input, dy, skip, *grads[:2]))
        call, rest = (g, x, add, flat(weight), flat(bias)), (s.activation, s.slope, last, s.backend)
        sums = torch.empty_like(used)
        batch_norm_sums(*call, used[0], used[1].square(), *sums, 0.0, *rest)
        arriving = -gathered(sums.double(), ctx.group).sum(0) / used[1]
        if weight is not None:
            arriving = arriving * weight
        arriving, here = arriving.to(used.dtype), input.numel() // max(input.shape[1], 1)

        def run(state):
            met = [t.to(used.dtype) for t in state]
            taken, new = streamed(arriving, *met, weights=s.beta)
            # the op shares out what is taken among the values here: all of it is given as the long term, and its share
            given = taken * (here / count.clamp(min=1)), torch.zeros_like(new), met[2].new_tensor([0.0, 1.0])
            streaming_norm_bwd(
                *call, found, used, deviations, *given, to_x, to_skip, flat(grads[2]), flat(grads[3]),
                torch.empty_like(used), 1.0, 0.0, 0.0, s.p, s.eps, *rest,
            )  # fmt: skip
            return [state[0], *anywhere(count, met, taken_in(met, new, state[2]))]

        accumulate(ctx, ctx.memory, run)
        if s.activation == "identity" and wanted[1]:
            grads[1] = dy
        return *grads, None, None, None, None, None, None, None


def anywhere(count: Tensor, met: list[Tensor], new: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The short term and its counts after a call, as they were if no process had a sample."""
    return [torch.where(count > 0, a, b) for a, b in zip(new, met[1:], strict=True)]
