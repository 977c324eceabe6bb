"""What the channel family shares in Python: schemas, the one recipe, checks, running statistics."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._activations import GATED, Activation
from normkernels._backends.reference._channels import channels_ref, moments
from normkernels.ops import _onnx
from normkernels.ops._buffers import flat, planes, statistic_dtype
from normkernels.ops._channel_layouts import buffers, lies_last, like, lying, view
from normkernels.ops._inlined import small
from normkernels.ops._inlined_channels import InlinedChannels
from normkernels.ops._state import inside_transform, write
from normkernels.ops._ways import Recipe, differentiated_again, forward, gradients

# x, skip, y, dy, dx, dskip: contiguous (N, C, S), or (N, S, C) with channels_last; weight, bias, dweight, dbias: (C,)
# skip: added, or a gate where the activation is called gated_...: y = u act(gate), and dskip is the gate's gradient
# mean, var: (B, G), var biased; a statistic pools N / B images and C / G adjacent channels
FWD = (
    "(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) var, float eps, "
    "str activation, float slope, bool channels_last)"
)
BWD = (
    "(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor(a!) dx, "
    "Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, float eps, bool training, str activation, float slope, "
    "bool channels_last)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor. ``batch``: statistics pool the images; else ``groups`` for each image."""

    fwd: Callable[..., None]
    bwd: Callable[..., None]
    batch: bool
    groups: int
    eps: float
    activation: str
    slope: float
    backend: str | None


class ChannelsRecipe(Recipe):
    """(input, skip, weight, bias, mean, var) -> (y, mean, var) of input where mean and var are None; else (y,)."""

    @staticmethod
    def run(input, skip, weight, bias, mean, var, settings: Settings):
        fwd, _, batch, groups, eps, activation, slope, backend = settings
        last, training, y = lies_last(input), mean is None, like(input, lies_last(input))
        x = view(input, last, batch)
        if training:
            shape = 1 if batch else x.shape[0], groups
            mean, var = (x.new_empty(shape, dtype=statistic_dtype(x)) for _ in range(2))
            results = view(y, last, batch), mean, var
        else:
            results = mean, var, view(y, last, batch)
        fwd(x, view(skip, last, batch), flat(weight), flat(bias), *results, eps, activation, slope, last, backend)
        # u = xhat * weight + bias + skip is computed again in backward, so skip is needed where act'(u) is
        kept = None if activation == "identity" else skip
        return (y, mean, var) if training else (y,), (input, kept, weight, bias, mean, var)

    @staticmethod
    def composed(input, skip, weight, bias, mean, var, settings: Settings):
        x = planes(input).to(statistic_dtype(input))  # cast once, so that gradients add up in that dtype
        shape = 1 if settings.batch else x.shape[0], settings.groups
        numbers = settings.eps, settings.activation, settings.slope
        y = channels_ref(x, planes(skip), weight, bias, mean, var, shape, *numbers)
        y = lying(y.to(input.dtype), input)
        return (y, *moments(x.detach(), shape)) if mean is None else (y,)

    @staticmethod
    def standard(input, skip, weight, bias, mean, var, settings: Settings):
        if mean is None and settings.batch:  # of a batch: in training alone, where nobody exports for inference
            return ChannelsRecipe.composed(input, skip, weight, bias, mean, var, settings)
        y = _onnx.channels(input, skip, weight, bias, mean, var, settings)
        if mean is not None:
            return (y,)
        x = planes(input).to(statistic_dtype(input))
        return (y, *moments(x, (x.shape[0], settings.groups)))

    @staticmethod
    def inlined(input, skip, weight, bias, mean, var, settings: Settings):
        # channels that lie last are summed across lines, which Inductor vectorises badly
        if mean is None and not small(input, 1 << (14 if lies_last(input) else 17)):
            return None
        if mean is None:
            given = (input, skip) if input.dim() > 2 else (planes(input), planes(skip))
            y, *found = InlinedChannels.apply(*given, weight, bias, settings)
            return lying(y, input) if lies_last(input) else y.reshape(input.shape).contiguous(), *found
        return ChannelsRecipe.standard(input, skip, weight, bias, mean, var, settings)

    @staticmethod
    def forward(ctx, *args):
        ctx.training = args[4] is None
        return forward(ctx, ChannelsRecipe, args, 1)

    @staticmethod
    def backward(ctx, dy, *_):
        input, skip, weight, bias, mean, var = ctx.saved_tensors
        _, bwd, batch, _, eps, activation, slope, backend = ctx.settings
        wanted = ctx.needs_input_grad
        if differentiated_again():
            given = (None, None) if ctx.training else (mean, var)
            grads = gradients(ChannelsRecipe, (input, skip, weight, bias), (dy,), *given, ctx.settings)
        else:
            grads = buffers(input, skip, weight, bias, wanted)
            last = lies_last(input)
            x, g, s, to_x, to_s = (view(t, last, batch) for t in (input, dy, skip, *grads[:2]))
            bwd(
                g, x, s, flat(weight), flat(bias), mean, var, to_x, to_s, flat(grads[2]), flat(grads[3]), eps,
                ctx.training, activation, slope, last, backend,
            )  # fmt: skip
        if activation == "identity" and wanted[1]:
            grads[1] = dy
        return *grads, None, None, None


def like_inputs(found: Iterable[Any], inputs: Iterable[Any]) -> list[Any]:
    """Gradients as a reference finds them, in the shapes and dtypes of what they are by; None where there is none."""
    return [None if t is None else d.to(t.dtype).reshape(t.shape) for d, t in zip(found, inputs, strict=True)]


def check_beside(name: str, input: Tensor, skip: Tensor | None, gate: Tensor | None) -> Tensor | None:
    """Skip or the gate, which ops have in its place: of input's shape, a gate of its dtype too."""
    _checks.check_like_input(name, "skip", skip, input)
    _checks.check_gate(name, gate, input)
    if skip is not None and gate is not None:
        _checks.fail(name, "gate", "be given without a skip", "both")
    return skip if gate is None else gate


def check_activation(name: str, activation: Activation | None, gate: Tensor | None) -> str:
    """What ops call the activation of u, or of the gate."""
    found = _checks.check_activation(name, activation)
    return found if gate is None else GATED + found


def check_channels(
    name: str, input: Tensor, weight: Tensor | None, bias: Tensor | None, skip: Tensor | None,
    gate: Tensor | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """(input, skip, weight, bias) in their dtypes: input must be (N, C, *), weight and bias (C,), skip like input."""
    _checks.check_input(name, input)
    if input.dim() < 2:
        _checks.fail(name, "input", "have at least 2 dimensions (N, C, *)", f"shape {tuple(input.shape)}")
    skip = check_beside(name, input, skip, gate)
    if skip is not None or input.dtype.itemsize == 2:
        input, skip, weight, bias = _checks.prepared(name, input, skip, weight, bias)
    _checks.check_per_channel(name, input, weight=weight, bias=bias)
    return input, skip, weight, bias


def check_running(
    name: str, input: Tensor, mean: Tensor | None, var: Tensor | None, needed: bool, weight: Tensor | None
) -> None:
    """running_mean and running_var must be (C,), as the weight is; both or neither; ``needed``: both."""
    for argument, tensor, other in (("running_mean", mean, var), ("running_var", var, mean)):
        if tensor is None and (needed or other is not None):
            rule = "be given where no statistics are taken from input" if needed else "come with its twin"
            _checks.fail(name, argument, rule, None)
    _checks.check_per_channel(name, input, running_mean=mean, running_var=var, weight=weight)


def given_statistics(input: Tensor, *statistics: Tensor | None) -> list[Tensor]:
    """Running statistics as constants (1, C) of a call: copies if a backward may still need them."""
    dtype, copy = statistic_dtype(input), torch.is_grad_enabled()
    return [t.detach().reshape(1, -1).to(dtype, copy=copy) for t in statistics if t is not None]


def update_running(running: Any, found: Tensor, momentum: float) -> None:
    """running = (1 - momentum) * running + momentum * found, in the precision of found."""
    if running.dtype == found.dtype and not inside_transform(found):
        running.lerp_(found.detach(), momentum)
    else:
        write(running, torch.lerp(running.detach().to(found.dtype), found, momentum))
