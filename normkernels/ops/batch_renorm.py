"""Batch Renormalization (Ioffe 2017, arXiv:1702.03275)."""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels._backends.reference._channels import moments
from normkernels._backends.reference.batch_renorm import batch_renorm_ref, correction
from normkernels._library import kernel
from normkernels.ops import _channels
from normkernels.ops._buffers import differentiable_backward, flat, statistic_dtype
from normkernels.ops._channels import ChannelsRecipe, buffers, lies_last, like, lying, planes, view
from normkernels.ops._state import advance, sound
from normkernels.ops._ways import Recipe, call, differentiated_again, forward, function
from normkernels.ops.batch_norm import batch_norm_apply, batch_norm_bwd

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


@function
def batch_renorm(
    input: Tensor, running_mean: Tensor, running_std: Tensor, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.01, eps: float = 1e-5, *,
    r_max: float = 3.0, d_max: float = 5.0, num_batches_tracked: Tensor | None = None, warmup_steps: int = 5000,
    r_ramp_steps: int = 35000, d_ramp_steps: int = 20000, skip: Tensor | None = None,
    activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
) -> Tensor:  # fmt: skip
    r"""Batch Renormalization: batch normalisation whose training output is that of inference, up to bounds.

    With :math:`\mu_B` and :math:`\sigma_B = \sqrt{\text{var}_B + \epsilon}` over batch and space (biased), and the
    running :math:`\mu, \sigma` from **before** this batch:

    .. math::
        r = \text{clip}(\sigma_B / \sigma,\ 1/r_{max},\ r_{max}), \quad
        d = \text{clip}((\mu_B - \mu) / \sigma,\ -d_{max},\ d_{max}), \quad
        y = \text{activation}\Big(\Big(\frac{x - \mu_B}{\sigma_B} r + d\Big) w + b + \text{skip}\Big)

    No gradient flows through r and d. A channel whose mean or deviation is not finite keeps its running ones. Without
    ``training``, :math:`(x - \mu) / \sigma` takes the place of the bracket: the same value wherever nothing was
    clipped. :math:`r_{max} = 1, d_{max} = 0` is batch norm in training.

    Args:
        input: x, ``(N, C)``, ``(N, C, L)``, ``(N, C, H, W)``, ... in float64, float32, bfloat16 or float16. A
            contiguous or channels_last layout is read and kept as it is; other strides are copied once.
        running_mean, running_std: ``(C,)``, in input's dtype or float32, 0 and 1 at the start. With ``training``
            updated in place, ``running = (1 - momentum) * running + momentum * batch``, the standard deviation being
            :math:`\sigma_B`, eps and all.
        weight: w, ``(C,)``, in input's dtype or float32; None means 1.
        bias: b, ``(C,)``, in input's dtype or float32; None means 0.
        training: normalise with the statistics of this batch, corrected.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance (units of x²).
        r_max, d_max: the bounds; at least 1 and at least 0.
        num_batches_tracked: how many training calls there were, a scalar, counted up in place. Given, the bounds are
            those of batch norm, 1 and 0, until it is ``warmup_steps``; then they grow linearly, to ``r_max`` in
            ``r_ramp_steps`` and to ``d_max`` in ``d_ramp_steps`` more. Without it they are ``r_max`` and ``d_max``.
        warmup_steps, r_ramp_steps, d_ramp_steps: of the ramp of the bounds.
        skip: input's shape; added after the affine, before the activation; the ResNet block. y is in the wider dtype of
            both.
        activation: None or a name of ``normkernels.ACTIVATIONS``.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, input's shape, dtype and layout. Statistics are in float32 (float64 for float64), and y is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout, name or number is wrong, or there is one value per channel in
            training: x - mean is then 0, and nothing could be learnt. The running statistics are then as they were.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, skip, weight, bias; twice differentiable (through the reference), with r and d for constants. A
    call made again by activation checkpointing sees the statistics of the first one and does not update them.
    Deterministic: yes.

    Example:
        >>> x, mean, std = torch.randn(8, 4, 5, 5), torch.zeros(4), torch.ones(4)
        >>> nk.functional.batch_renorm(x, mean, std, training=True, r_max=2.0, d_max=1.0).shape
        torch.Size([8, 4, 5, 5])

    Source: Ioffe 2017, arXiv:1702.03275, algorithm 1.
    """
    name = "batch_renorm"
    input, skip, weight, bias = _channels.check_channels(name, input, weight, bias, skip)
    for argument, tensor in (("running_mean", running_mean), ("running_std", running_std)):
        if tensor is None:
            _checks.fail(name, argument, "be given", None)
    _checks.check_per_channel(name, input, running_mean=running_mean, running_std=running_std, weight=weight)
    _checks.check_eps(name, eps)
    ramp = Ramp(r_max, d_max, warmup_steps, r_ramp_steps, d_ramp_steps)
    ramp.check(name)
    activation = _checks.check_activation(name, activation)
    backend = requested(backend, name, input)
    N, C = input.shape[:2]
    count = N * prod(input.shape[2:])
    if training and count == 1:
        rule = "have more than one value per channel in training (OnlineNorm, LayerNorm and GroupNorm need no batch)"
        _checks.fail(name, "input", rule, f"shape {tuple(input.shape)}")
    if not training:
        mean, std = _channels.given_statistics(input, running_mean, running_std)
        settings = _channels.Settings(batch_norm_apply, batch_norm_bwd, True, C, 0.0, activation, slope, backend)
        return call(ChannelsRecipe, input, skip, weight, bias, mean, std.square(), settings)[0]
    dtype, settings = statistic_dtype(input), Settings(eps, activation, slope, backend)

    def run(state):
        before = [t.to(dtype) for t in state[:2]]
        rows, bounds = (t.view(1, C) for t in before), ramp.bounds(before[0], *state[2:])
        y, mean, var = call(BatchRenormRecipe, input, skip, weight, bias, *rows, *bounds, settings)
        if count == 0:
            return y, state
        found = mean[0], (var[0] + eps).sqrt()
        moved = [torch.lerp(a, b, momentum) for a, b in zip(before, found, strict=True)]
        return y, [*sound(moved, before, found), *(n + 1 for n in state[2:])]

    state = [running_mean, running_std, *([] if num_batches_tracked is None else [num_batches_tracked])]
    return advance(running_mean, state, run)
