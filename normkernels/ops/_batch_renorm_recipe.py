"""Batch Renormalization: its ops, its bounds and its recipe."""

from typing import NamedTuple

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._backends.reference._channels import moments
from normkernels._backends.reference.batch_renorm import batch_renorm_ref, correction
from normkernels._library import kernel
from normkernels.ops._buffers import differentiable_backward, flat, planes
from normkernels.ops._channel_layouts import buffers, lies_last, like, lying, view
from normkernels.ops._ways import Recipe, differentiated_again, forward

# as in _channels; running_mean, running_std, mean, var, r, d: (1, C); r_max, d_max: scalars; all in the dtype of mean
batch_renorm_fwd = kernel(
    "batch_renorm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_std, "
    "Tensor r_max, Tensor d_max, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) var, Tensor(d!) r, Tensor(e!) d, float eps, "
    "str activation, float slope, bool channels_last)"
)
batch_renorm_bwd = kernel(
    "batch_renorm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
    "Tensor r, Tensor d, Tensor(a!) dx, Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, float eps, "
    "str activation, float slope, bool channels_last)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    eps: float
    activation: str
    slope: float
    backend: str | None


class Ramp(NamedTuple):
    """The bounds of r and d, and how they grow."""

    r_max: float
    d_max: float
    warmup_steps: int
    r_ramp_steps: int
    d_ramp_steps: int

    def check(self, name: str) -> None:
        for argument, value in self._asdict().items():
            if not value >= (argument == "r_max"):
                _checks.fail(name, argument, f"be at least {int(argument == 'r_max')}", value)

    def bounds(self, like: Tensor, step: Tensor | None = None) -> list[Tensor]:
        """r_max and d_max after ``step`` training calls, scalars like ``like``."""
        if step is None:
            return [like.new_full((), bound) for bound in (self.r_max, self.d_max)]
        after = (step - self.warmup_steps).to(like.dtype)
        r, d = ((after / max(n, 1e-3)).clamp(0, 1) for n in (self.r_ramp_steps, self.d_ramp_steps))
        return [r * (self.r_max - 1) + 1, d * self.d_max]


class BatchRenormRecipe(Recipe):
    """(input, skip, weight, bias, running mean, running std, r_max, d_max) -> (y, mean, var) of input."""

    @staticmethod
    def run(input, skip, weight, bias, running_mean, running_std, r_max, d_max, settings: Settings):
        last = lies_last(input)
        x, y = view(input, last, True), like(input, last)
        mean, var, r, d = (torch.empty_like(running_mean) for _ in range(4))
        batch_renorm_fwd(
            x, view(skip, last, True), flat(weight), flat(bias), running_mean, running_std, r_max, d_max,
            view(y, last, True), mean, var, r, d, settings.eps, settings.activation, settings.slope, last,
            settings.backend,
        )  # fmt: skip
        kept = None if settings.activation == "identity" else skip
        return (y, mean, var), (input, kept, weight, bias, mean, var, r, d)

    @staticmethod
    def composed(input, skip, weight, bias, running_mean, running_std, r_max, d_max, settings: Settings):
        x = planes(input)
        mean, var = running_mean, running_std  # an empty batch has none of its own
        if x.numel():
            mean, var = (t.detach() for t in moments(x.to(running_mean.dtype), running_mean.shape))
        r, d = correction(mean, var, running_mean, running_std, r_max, d_max, settings.eps)
        return BatchRenormRecipe.corrected(input, skip, weight, bias, r, d, settings)[0], mean, var

    @staticmethod
    def corrected(input, skip, weight, bias, r, d, settings: Settings):
        """(y,), with r and d for constants."""
        y = batch_renorm_ref(planes(input), planes(skip), weight, bias, r, d, *settings[:3])
        return (lying(y, input),)

    @staticmethod
    def forward(ctx, *args):
        return forward(ctx, BatchRenormRecipe, args, 1)

    @staticmethod
    def backward(ctx, dy, *_):
        input, skip, weight, bias, mean, var, r, d = ctx.saved_tensors
        eps, activation, slope, backend = ctx.settings
        wanted = ctx.needs_input_grad
        if differentiated_again():

            def composed(input, skip, weight, bias):
                return BatchRenormRecipe.corrected(input, skip, weight, bias, r, d, ctx.settings)

            grads = differentiable_backward(composed, (input, skip, weight, bias), (dy,))
        else:
            grads = buffers(input, skip, weight, bias, wanted)
            last = lies_last(input)
            x, g, s, to_x, to_s = (view(t, last, True) for t in (input, dy, skip, *grads[:2]))
            batch_renorm_bwd(
                g, x, s, flat(weight), flat(bias), mean, var, r, d, to_x, to_s, flat(grads[2]), flat(grads[3]),
                eps, activation, slope, last, backend,
            )  # fmt: skip
        if activation == "identity" and wanted[1]:
            grads[1] = dy
        return *grads, None, None, None, None, None
