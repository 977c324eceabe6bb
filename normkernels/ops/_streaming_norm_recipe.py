"""Streaming normalisation: its ops and its recipe."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels._activations import activation as act
from normkernels._backends import transformed
from normkernels._backends.reference import streaming_norm as reference
from normkernels._backends.reference._channels import affine
from normkernels._library import kernel
from normkernels.ops._buffers import flat, planes
from normkernels.ops._channel_layouts import buffers, lies_last, like, lying, view
from normkernels.ops._channels import like_inputs
from normkernels.ops._state import accumulate, finite
from normkernels.ops._ways import Recipe, differentiated_again, forward, own_gradient

# as in _channels; found, used and the terms: (2, C), means and scales (backward: their gradients); counts: (2,),
# arrivals in the short term and updates of the long one; deviations: (C,), the mean of |v|^(p - 1) sign(v),
# v = x - mean, None where p is 2 and it is 0. long, short, current: the weights of what is used.
streaming_norm_fwd = kernel(
    "streaming_norm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor long_term, Tensor short_term, "
    "Tensor counts, Tensor(a!) y, Tensor(b!) found, Tensor(c!) used, Tensor(d!)? deviations, "
    "Tensor(e!) new_short_term, float long, float short, float p, float eps, str activation, float slope, "
    "bool channels_last)"
)
streaming_norm_bwd = kernel(
    "streaming_norm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor found, Tensor used, "
    "Tensor? deviations, Tensor long_term, Tensor short_term, Tensor counts, Tensor(a!) dx, Tensor(b!)? dskip, "
    "Tensor(c!)? dweight, Tensor(d!)? dbias, Tensor(e!) new_short_term, float long, float short, float current, "
    "float p, float eps, str activation, float slope, bool channels_last)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    alpha: tuple[float, float]
    beta: tuple[float, float, float]
    p: float
    eps: float
    activation: str
    slope: float
    backend: str | None


class StreamingNormRecipe(Recipe):
    """(input, skip, weight, bias, forward's terms and counts, backward's) -> (y, new short term)."""

    @staticmethod
    def run(input, skip, weight, bias, long_term, short_term, counts, *args):
        s, last = args[-1], lies_last(input)
        y = like(input, last)
        found, used, new = (torch.empty_like(short_term) for _ in range(3))
        deviations = None if s.p == 2 else torch.empty_like(short_term[0])
        streaming_norm_fwd(
            view(input, last, True), view(skip, last, True), flat(weight), flat(bias), long_term, short_term, counts,
            view(y, last, True), found, used, deviations, new, *s.alpha, s.p, s.eps, s.activation, s.slope, last,
            s.backend,
        )  # fmt: skip
        kept = None if s.activation == "identity" else skip
        return (y, new), (input, kept, weight, bias, found, used, deviations, long_term, short_term, counts)

    @staticmethod
    def composed(input, skip, weight, bias, long_term, short_term, counts, *args):
        *gradients, s = args

        def value(input, skip, weight, bias, *terms):
            x = planes(input)
            used = _statistics(s, x, terms)[1]
            xhat = (x.to(used.dtype) - used[0, :, None]) / used[1, :, None]
            y = act(s.activation, affine(xhat, weight, bias, planes(skip)), s.slope)
            return lying(y.to(input.dtype), input)

        def gradient(ctx, dy, input, skip, weight, bias, *constants):
            terms, seen, grads = constants[:3], constants[3:], []

            def run(state):
                met = [t.to(terms[0].dtype) for t in state]
                grads[:], new = _gradients(s, input, skip, weight, bias, terms, met, dy)
                return [state[0], *arrived(input, met, new, state[2])]

            accumulate(ctx, gradients, run, seen)
            return *grads, *[None] * len(constants)

        inputs = input, skip, weight, bias, long_term, short_term, counts
        seen = [t.detach().clone() for t in gradients] if transformed() else []
        return own_gradient(value, gradient, inputs, seen), _statistics(s, planes(input.detach()), inputs[4:])[2]

    @staticmethod
    def forward(ctx, *args):
        ctx.gradients = list(args[-4:-1])
        return forward(ctx, StreamingNormRecipe, args, 1)

    @staticmethod
    def backward(ctx, dy, _):
        input, skip, weight, bias, found, used, deviations, *terms = ctx.saved_tensors
        s, wanted, last = ctx.settings, ctx.needs_input_grad, lies_last(input)
        grads: list[Any] = []

        def run(state):
            met = [t.to(used.dtype) for t in state]
            if differentiated_again():
                grads[:], new = _gradients(s, input, skip, weight, bias, terms, met, dy)
            else:
                new = torch.empty_like(used)
                grads[:] = buffers(input, skip, weight, bias, wanted)
                x, g, add, to_x, to_skip = (view(t, last, True) for t in (input, dy, skip, *grads[:2]))
                streaming_norm_bwd(
                    g, x, add, flat(weight), flat(bias), found, used, deviations, *met, to_x, to_skip, flat(grads[2]),
                    flat(grads[3]), new, *s.beta, s.p, s.eps, s.activation, s.slope, last, s.backend,
                )  # fmt: skip
            return [state[0], *arrived(input, met, new, state[2])]

        accumulate(ctx, ctx.gradients, run)
        if s.activation == "identity" and wanted[1]:
            grads[1] = dy
        return *grads, None, None, None, None, None, None, None


def arrived(input: Tensor, terms: Sequence[Tensor], new: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The short term and the counts after one more arrival; none, if input is empty."""
    return taken_in(terms, new, counts) if input.numel() else (terms[1], counts)


def taken_in(terms: Sequence[Tensor], new: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The short term and the counts after one more arrival.

    For what is not finite the average of the short term stands in; that of the long one, if it is the first to arrive.
    """
    long_term, short_term, met = terms
    known = torch.where(finite(new), new, torch.where(met[0] > 0, short_term, long_term))
    counts = counts.clone()
    counts[:1].add_(1)
    return known, counts


def _statistics(s: Settings, x, terms):
    """Of x (N, C, S): what was found, what is used, and the new short term."""
    long_term, short_term, counts = terms
    found = reference.statistics(x.to(long_term.dtype), s.p, s.eps)
    return found, *reference.streamed(found, long_term, short_term, counts, (*s.alpha, 0.0))


def _gradients(s: Settings, input, skip, weight, bias, terms, met, dy):
    """(gradients, the new short term of gradients) by differentiable ops, from states that are constant."""
    x, add, g = (planes(t) for t in (input, skip, dy))
    found, used, _ = _statistics(s, x, terms)
    long_grad, short_grad, grad_counts = met
    *values, new = reference.gradients(
        g, x, add, weight, bias, found, used, long_grad, short_grad, grad_counts, s.beta, s.p, s.activation, s.slope
    )  # fmt: skip
    return like_inputs(values, (input, skip, weight, bias)), new
