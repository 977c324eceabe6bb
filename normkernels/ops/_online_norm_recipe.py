"""Online normalisation: its ops and its recipe."""

from math import prod
from typing import Any, NamedTuple

import torch

from normkernels._backends import transformed
from normkernels._backends.reference import online_norm as reference
from normkernels._library import kernel
from normkernels.ops._buffers import flat, planes
from normkernels.ops._channel_layouts import buffers, lies_last, like, lying, view
from normkernels.ops._channels import like_inputs
from normkernels.ops._state import accumulate
from normkernels.ops._ways import Recipe, differentiated_again, forward, own_gradient

# x, skip, y, dy, dx, dskip: contiguous (N, C, S), or (N, S, C) with channels_last; weight, bias and their gradients:
# (C,); mean, rstd: (N, C), of the state that each sample meets; xhat_mean, xhat_square: (N, C), means over a sample of
# xhat and xhat^2, None where S is 1 (or nobody needs them); gain: (N,), 1 / zeta of layer scaling, None without it;
# clamp: inf for none. rates: (N,) float64, the weight of each sample in the statistics; None: the statistics are
# constants. State: (C,).
online_norm_fwd = kernel(
    "online_norm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, "
    "Tensor? rates, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) rstd, Tensor(d!)? xhat_mean, Tensor(e!)? xhat_square, "
    "Tensor(f!)? gain, Tensor(g!)? new_mean, Tensor(h!)? new_var, float eps, float ls_eps, float clamp, "
    "str activation, float slope, bool channels_last)"
)
# epsilon_y, epsilon_1: the accumulators of the control process; None: statistics were constants, and dx = g * rstd
online_norm_bwd = kernel(
    "online_norm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, "
    "Tensor? xhat_mean, Tensor? xhat_square, Tensor? gain, Tensor? epsilon_y, Tensor? epsilon_1, Tensor(a!) dx, "
    "Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, Tensor(e!)? new_epsilon_y, Tensor(f!)? new_epsilon_1, "
    "float alpha, bool stable, float clamp, str activation, float slope, bool channels_last)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    alpha_bkw: float
    stable: bool
    eps: float
    layer_scaling: bool
    ls_eps: float
    clamp: float  # inf: none
    activation: str
    slope: float
    backend: str | None


class OnlineNormRecipe(Recipe):
    """(input, skip, weight, bias, mean, var, rates, accumulators) -> (y, new mean, new var), or (y,) without rates."""

    @staticmethod
    def run(input, skip, weight, bias, mean, var, rates, epsilon_y, epsilon_1, settings: Settings):
        s = settings
        last, N, C = lies_last(input), *input.shape[:2]
        x, y = view(input, last, False), like(input, last)
        sums = prod(input.shape[2:]) != 1 and (rates is not None or s.layer_scaling)

        def table(*shape, wanted=True):
            return x.new_empty(shape, dtype=mean.dtype) if wanted else None

        tables = table(N, C), table(N, C), table(N, C, wanted=sums), table(N, C, wanted=sums)
        gain = table(N, wanted=s.layer_scaling)
        new = [table(C, wanted=rates is not None) for _ in range(2)]
        online_norm_fwd(
            x, view(skip, last, False), flat(weight), flat(bias), mean, var, rates, view(y, last, False), *tables, gain,
            *new, s.eps, s.ls_eps, s.clamp, s.activation, s.slope, last, s.backend,
        )  # fmt: skip
        kept = None if s.activation == "identity" else skip
        return (y,) if rates is None else (y, *new), (input, kept, weight, bias, *tables, gain)

    @staticmethod
    def composed(input, skip, weight, bias, mean, var, rates, epsilon_y, epsilon_1, settings: Settings):
        constants = [t for t in (mean, var, rates) if t is not None]

        def tables(input, mean, var, rates=None):
            means, variances, *new = reference.statistics(planes(input.detach()).to(mean.dtype), mean, var, rates)
            return (means, torch.rsqrt(variances + settings.eps)), new

        def value(input, skip, weight, bias, *constants):
            found = tables(input, *constants)[0]
            y, _ = reference.online_norm_ref(planes(input), planes(skip), weight, bias, *found, *settings[3:8])
            return lying(y, input)

        def gradient(ctx, dy, input, skip, weight, bias, mean, var, rates, *seen):
            grads: list[Any] = []

            def run(state):
                found, met = tables(input, mean, var, rates)[0], [t.to(mean.dtype) for t in state]
                grads[:], new = _gradients(settings, input, skip, weight, bias, found, met, dy)
                return new

            accumulate(ctx, [epsilon_y, epsilon_1], run, seen)
            return *grads, *[None] * (3 + len(seen))

        inputs = input, skip, weight, bias, *constants
        if rates is None:  # the gradient is the derivative
            return (value(*inputs),)
        seen = [t.detach().clone() for t in (epsilon_y, epsilon_1)] if transformed() else []
        return own_gradient(value, gradient, inputs, seen), *tables(input, *constants)[1]

    @staticmethod
    def forward(ctx, *args):
        *_, rates, epsilon_y, epsilon_1, _ = args
        ctx.accumulators = [epsilon_y, epsilon_1] if rates is not None else []
        return forward(ctx, OnlineNormRecipe, args, 1)

    @staticmethod
    def backward(ctx, dy, *_):
        input, skip, weight, bias, *tables = kept = ctx.saved_tensors
        s, wanted = ctx.settings, ctx.needs_input_grad
        grads: list[Any] = []

        def run(state):
            state = [t.to(tables[0].dtype) for t in state]
            if differentiated_again():
                grads[:], new = _gradients(s, input, skip, weight, bias, tables, state, dy)
                return new
            grads[:], new = backward(s, kept, dy, state, wanted)
            return new

        accumulate(ctx, ctx.accumulators, run)
        if s.activation == "identity" and wanted[1]:
            grads[1] = dy
        return *grads, None, None, None, None, None, None


def backward(s: Settings, kept, dy, state, wanted) -> tuple[list[Any], list[Any]]:
    """(gradients, accumulators after the samples) by the op, from accumulators in the dtype of the tables, or none."""
    input, skip, weight, bias, *tables = kept
    last, grads = lies_last(input), buffers(input, skip, weight, bias, wanted)
    x, g, add, to_x, to_skip = (view(t, last, False) for t in (input, dy, skip, *grads[:2]))
    new = [torch.empty_like(t) for t in state]
    online_norm_bwd(
        g, x, add, flat(weight), flat(bias), *tables, *(state or (None, None)), to_x, to_skip, flat(grads[2]),
        flat(grads[3]), *(new or (None, None)), s.alpha_bkw, s.stable, s.clamp, s.activation, s.slope, last, s.backend,
    )  # fmt: skip
    return grads, new if input.numel() else state


def _gradients(s: Settings, input, skip, weight, bias, tables, accumulators, dy):
    """(gradients, new accumulators) by differentiable ops, from a state that is constant."""
    mean, rstd = tables[:2]
    x, add, g = (planes(t) for t in (input, skip, dy))
    y_met, one_met = accumulators or (None, None)
    numbers = s.layer_scaling, s.ls_eps, s.clamp, s.activation, s.slope
    gain = reference.online_norm_ref(x, add, weight, bias, mean, rstd, *numbers)[1]
    *found, new_y, new_1 = reference.gradients(
        g, x, add, weight, bias, mean, rstd, gain, y_met, one_met, s.alpha_bkw, s.stable, s.clamp, s.activation, s.slope
    )
    grads = like_inputs(found, (input, skip, weight, bias))
    return grads, [new_y, new_1] if accumulators else []
