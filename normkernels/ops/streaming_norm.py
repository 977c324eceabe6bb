"""Streaming Normalization (Liao, Kawaguchi & Poggio 2016, arXiv:1610.06160)."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels.ops import _channels
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._channels import ChannelsRecipe
from normkernels.ops._state import advance
from normkernels.ops._streaming_norm_recipe import Settings, StreamingNormRecipe, arrived
from normkernels.ops._ways import call, function
from normkernels.ops.batch_norm import batch_norm_apply, batch_norm_bwd

KAPPA = (0.7, 0.3, 0.7, 0.3)
STATE = ("long_term", "short_term", "counts")


@function
def streaming_norm(
    input: Tensor, long_term: Tensor, short_term: Tensor, counts: Tensor, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, alpha: Sequence[float] = (0.7, 0.3),
    beta: Sequence[float] = (0.7, 0.0, 0.3), p: float = 2.0, eps: float = 1e-5, *, skip: Tensor | None = None,
    activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
) -> Tensor:  # fmt: skip
    r"""Streaming Normalization: statistics, and their gradients, mixed from a long and a short memory.

    A statistic s of the mini-batch, the mean m or the scale :math:`(\overline{|x - m|^p} + \epsilon)^{1/p}`, joins the
    short term, the plain average of all that arrived since the weights last changed; the long term is an average over
    such updates (:func:`streaming_norm_update`). Used is

    .. math::
        s_{used} = \alpha_1 s_{long} + \alpha_2 s_{short}, \quad
        y = \text{activation}\Big(\frac{x - m_{used}}{\text{scale}_{used}} w + b + \text{skip}\Big)

    and until the first update the short term stands in for the long one. For a statistic (or gradient) that is not
    finite the average of its channel arrives. Backward, the gradient g of the loss by a used statistic arrives in
    memories of its own, and in its place :math:`\beta_1 g_{long} + \beta_2 g_{short} + \beta_3 g` is propagated through
    the statistic of this mini-batch.
    :math:`\alpha = (0, 1), \beta = (0, 0, 1)`, p = 2 is batch norm, if the weights change after every mini-batch.

    Args:
        input: x, ``(N, C)``, ``(N, C, L)``, ``(N, C, H, W)``, ... in float64, float32, bfloat16 or float16. A
            contiguous or channels_last layout is read and kept as it is; other strides are copied once.
        long_term, short_term: ``(4, C)``, in input's dtype or float32: mean, scale, and the gradients of both. At the
            start the long scale is 1, all else 0. With ``training`` the short term is updated in place: its first two
            rows by the call, the others by its backward.
        counts: ``(2, 2)``, floating: for the statistics and for their gradients, the arrivals in the short term and the
            updates of the long one; 0 at the start, updated in place.
        weight: w, ``(C,)``, in input's dtype or float32; None means 1.
        bias: b, ``(C,)``, in input's dtype or float32; None means 0.
        training: take the statistics of this mini-batch in; else the long-term ones are constants (the short-term ones
            before the first update; mean 0 and scale 1 before anything arrived).
        alpha: weights of the long and the short term. They add up to 1.
        beta: weights of long term, short term and this mini-batch for the gradients. They add up to 1.
        p: of the scale, at least 1. p = 1 needs no squares, p = 2 is the standard deviation.
        eps: added to the mean of \|x - m\|^p, in its units.
        skip: input's shape; added after the affine, before the activation; the ResNet block. y is in the wider dtype of
            both.
        activation: None or a name of ``normkernels.ACTIVATIONS``.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, input's shape, dtype and layout. Statistics are in float32 (float64 for float64), and y is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout, name or number is wrong, or there is one value per channel in
            training, which has no scale. The state is then as it was.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input (as above), skip, weight, bias; twice differentiable (through the reference), with the state of the
    call for constants. A second backward through one graph starts where the first did, and moves nothing. A call made
    again by activation checkpointing sees the state of the first one and moves nothing.
    Deterministic: yes.

    Example:
        >>> long_term, short_term, counts = torch.zeros(4, 6), torch.zeros(4, 6), torch.zeros(2, 2)
        >>> long_term[1] = 1
        >>> y = nk.functional.streaming_norm(torch.randn(8, 6), long_term, short_term, counts, training=True)
        >>> nk.functional.streaming_norm_update(long_term, short_term, counts)
        >>> counts
        tensor([[0., 1.],
                [0., 0.]])

    Source: Liao, Kawaguchi & Poggio 2016, arXiv:1610.06160, section 3; where eps stands is ours, so that batch norm is
    a special case.
    """
    name = "streaming_norm"
    input, skip, weight, bias = _channels.check_channels(name, input, weight, bias, skip)
    N, C = input.shape[:2]
    for argument, tensor, shape in zip(STATE, (long_term, short_term, counts), ((4, C), (4, C), (2, 2)), strict=True):
        if tensor is None:
            _checks.fail(name, argument, "be given", None)
        _checks.check_parameter(name, argument, tensor, shape, input)
    check_settings(name, p, alpha, beta)
    _checks.check_eps(name, eps)
    activation = _checks.check_activation(name, activation)
    backend = requested(backend, name, input)
    if training and N * prod(input.shape[2:]) == 1:
        rule = "have more than one value per channel in training: one has no scale (OnlineNorm needs one only)"
        _checks.fail(name, "input", rule, f"shape {tuple(input.shape)}")
    dtype = statistic_dtype(input)
    if not training:
        mean, scale = long_term_statistics(long_term, short_term, counts).detach().to(dtype).unsqueeze(1)
        constants = _channels.Settings(batch_norm_apply, batch_norm_bwd, True, C, 0.0, activation, slope, backend)
        return call(ChannelsRecipe, input, skip, weight, bias, mean, scale.square(), constants)[0]
    settings = Settings(tuple(alpha), tuple(beta), float(p), eps, activation, slope, backend)  # type: ignore[arg-type]
    gradients = long_term[2:], short_term[2:], counts[1]

    def run(state):
        terms = [t.to(dtype) for t in state]
        y, new = call(StreamingNormRecipe, input, skip, weight, bias, *terms, *gradients, settings, derivative=False)
        return y, [terms[0], *arrived(input, terms, new, terms[2])]

    return advance(long_term, [long_term[:2], short_term[:2], counts[0]], run)


def long_term_statistics(long_term: Tensor, short_term: Tensor, counts: Tensor) -> Tensor:
    """Mean and scale, (2, C): the long term's; before its first update the short term's, if anything arrived."""
    arrivals, updates = counts[0]
    return torch.where((updates > 0) | (arrivals == 0), long_term[:2], short_term[:2])


@torch.no_grad()
def streaming_norm_update(
    long_term: Tensor, short_term: Tensor, counts: Tensor, kappa: Sequence[float] = KAPPA
) -> None:
    r"""The weights changed: the short term enters the long one, and starts again. In place, without a synchronisation.

    .. math::
        s_{long} \leftarrow \kappa_1 s_{long} + \kappa_2 s_{short}

    with :math:`\kappa_3, \kappa_4` for the gradients; the first short term is taken as it is, and where nothing arrived
    nothing changes.

    Args:
        long_term, short_term, counts: as in :func:`streaming_norm`, changed in place.
        kappa: the four weights.

    Raises:
        ValueError: a pair of kappa does not add up to 1.

    Example: see :func:`streaming_norm`.
    Source: Liao, Kawaguchi & Poggio 2016, arXiv:1610.06160, section 3.
    """
    _check_kappa("streaming_norm_update", kappa)
    for i, (old, new) in enumerate((kappa[:2], kappa[2:])):
        past, recent, (arrivals, updates) = long_term[2 * i :][:2], short_term[2 * i :][:2], counts[i].clone()
        entered = torch.where(updates > 0, old * past + new * recent, recent)
        past.copy_(torch.where(arrivals > 0, entered, past))
        recent.zero_()
        counts[i] = torch.stack([torch.zeros_like(arrivals), updates + (arrivals > 0)])


def check_settings(
    name: str, p: float, alpha: Sequence[float], beta: Sequence[float], kappa: Sequence[float] = KAPPA
) -> None:
    if not p >= 1:
        _checks.fail(name, "p", "be at least 1", p)
    _check_weights(name, "alpha", alpha, 2)
    _check_weights(name, "beta", beta, 3)
    _check_kappa(name, kappa)


def _check_kappa(name: str, kappa: Sequence[float]) -> None:
    if len(kappa) != 4:
        _checks.fail(name, "kappa", "be four numbers", kappa)
    _check_weights(name, "kappa[:2]", kappa[:2], 2)
    _check_weights(name, "kappa[2:]", kappa[2:], 2)


def _check_weights(name: str, argument: str, weights: Sequence[float], n: int) -> None:
    if len(weights) != n or not abs(sum(weights) - 1) < 1e-6:
        _checks.fail(name, argument, f"be {n} numbers that add up to 1", weights)
