"""Online Normalization (Chiley et al. 2019, arXiv:1905.05894)."""

import math
from typing import Any

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels.ops import _channels
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._online_norm_recipe import OnlineNormRecipe, Settings
from normkernels.ops._state import advance
from normkernels.ops._ways import call, function

GUARDS = ("layer_scaling", "clamp", None)


def rates_of(input: Tensor, alpha: float, num_samples_tracked: Tensor | None = None) -> Tensor:
    """The weight of each sample in the statistics; 1 - alpha, or that of an average in which the first state counts."""
    N = input.shape[0]
    if num_samples_tracked is None or alpha == 1:
        return torch.full((N,), 1 - alpha, dtype=torch.float64, device=input.device)
    before: Any = num_samples_tracked
    if hasattr(before, "placements"):  # a DTensor, which is added to no plain tensor with dims
        before = before.full_tensor()
    seen = before + torch.arange(2, N + 2, dtype=torch.float64, device=input.device)
    return (1 - alpha) / (1 - torch.pow(alpha, seen))


@function
def online_norm(
    input: Tensor, running_mean: Tensor, running_var: Tensor, epsilon_1: Tensor | None = None,
    epsilon_y: Tensor | None = None, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, alpha_fwd: float = 0.999, alpha_bkw: float = 0.99, eps: float = 1e-5, *,
    guard: str | None = "layer_scaling", ls_eps: float = 1e-5, clamp: float = 5.0, stable: bool = False,
    num_samples_tracked: Tensor | None = None, skip: Tensor | None = None, activation: Activation | None = None,
    slope: float = 0.01, backend: str | None = None,
) -> Tensor:  # fmt: skip
    r"""Online Normalization: each sample is normalised with the statistics of the samples before it, at any batch size.

    With :math:`m_t, s_t` the mean and biased variance of sample t (one channel of it), :math:`\alpha` ``alpha_fwd``:

    .. math::
        \hat x_t = \frac{x_t - \mu_{t-1}}{\sqrt{\sigma^2_{t-1} + \epsilon}}, \quad
        \sigma^2_t = \alpha\sigma^2_{t-1} + (1 - \alpha) s_t + \alpha(1 - \alpha)(m_t - \mu_{t-1})^2, \quad
        \mu_t = \alpha\mu_{t-1} + (1 - \alpha) m_t

        z = \hat x w + b, \quad y = \text{activation}(\text{guard}(z) + \text{skip})

    A batch is N consecutive samples: splitting it changes nothing. The guard keeps errors in the statistics from
    growing with depth: layer scaling :math:`z_t / \sqrt{\text{mean}(z_t^2) + \text{ls\_eps}}` over all channels of a
    sample, or a clamp to :math:`\pm` ``clamp``. No gradient flows into the statistics; instead two accumulators per
    channel take out of it, on average over time, what batch normalisation's gradient lacks. With g the gradient at
    :math:`\hat x_t`, :math:`p = 1 -` ``alpha_bkw``, and bars for means over a sample:

    .. math::
        h = g - p\,\varepsilon^{(y)}_{t-1} \hat x_t, \quad
        \varepsilon^{(y)}_t = \varepsilon^{(y)}_{t-1} + \overline{h \hat x_t}, \quad
        \frac{\partial L}{\partial x_t} = \frac{h}{\sqrt{\sigma^2_{t-1} + \epsilon}} - p\,\varepsilon^{(1)}_{t-1}, \quad
        \varepsilon^{(1)}_t = \varepsilon^{(1)}_{t-1} + \overline{\frac{\partial L}{\partial x_t}}

    Args:
        input: x, ``(N, C)``, ``(N, C, L)``, ``(N, C, H, W)``, ... in float64, float32, bfloat16 or float16, N from 1. A
            contiguous or channels_last layout is read and kept as it is; other strides are copied once.
        running_mean, running_var: :math:`\mu, \sigma^2`, ``(C,)``, in input's dtype or float32; 0 and 1 at the start.
            With ``training`` they are updated in place.
        epsilon_1, epsilon_y: the accumulators, ``(C,)``, in input's dtype or float32, in units of the gradient; 0 at
            the start. Updated in place by the backward of a call with ``training``, which must have them.
        weight: w, ``(C,)``, in input's dtype or float32; None means 1.
        bias: b, ``(C,)``, in input's dtype or float32; None means 0.
        training: move the statistics on; else they are constants, and dx is the gradient of y.
        alpha_fwd, alpha_bkw: decay of the statistics and of the accumulators, in [0, 1]. 1 freezes the statistics, or
            makes dx = g / sigma.
        eps: added to the variance (units of x²).
        guard: ``"layer_scaling"``, ``"clamp"`` or None.
        ls_eps: of layer scaling, added to the mean square.
        clamp: of the clamp.
        stable: replace p by min(p, 1 / mean(xhat_t²)) where it meets xhat, so that no gain exceeds 1: a sample far
            outside its statistics then cannot make the accumulators diverge. The same numbers wherever the gain was no
            more.
        num_samples_tracked: how many samples the statistics have seen, a scalar, updated in place; given, the
            statistics start as the average of these samples and the first state, which counts as one: sample t weighs
            (1 - alpha) / (1 - alpha^(t + 1)) instead of 1 - alpha (bias correction).
        skip: input's shape; added after the guard, before the activation; the ResNet block. y is in the wider dtype of
            both.
        activation: None or a name of ``normkernels.ACTIVATIONS``.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, input's shape, dtype and layout, rounded once. Statistics are in float32 (float64 for float64).

    Raises:
        ValueError: a shape, dtype, device or name is wrong, or a number is out of its range.
            The state is then as it was.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input (as above: it is not the derivative of y), skip, weight, bias. With ``create_graph=True`` they can
    be differentiated again, with the state of the call for constants. Backward keeps x (and skip, where an activation
    follows it) and two to four numbers for each channel of each sample.

    A sample with a mean or variance that is not finite (or beyond 1e18 in float32) leaves the statistics of that
    channel as they were, and a gradient that is not finite the accumulators: y or dx of that sample are what
    arithmetic makes of them, later ones are sound. Several calls before a backward: their backwards run last call
    first, each from the accumulators that the one before left. A second backward through one graph starts where the
    first did, and moves nothing. A call made again by activation checkpointing sees the state of the first one and
    moves nothing. Deterministic: yes.

    Example:
        >>> x, mean, var = torch.randn(1, 4, 5, 5), torch.zeros(4), torch.ones(4)
        >>> accumulators = torch.zeros(4), torch.zeros(4)
        >>> nk.functional.online_norm(x, mean, var, *accumulators, training=True).shape
        torch.Size([1, 4, 5, 5])

    Source: Chiley et al. 2019, arXiv:1905.05894, equations 8 to 12; bias correction and ``stable`` are ours.
    """
    name = "online_norm"
    input, skip, weight, bias = _channels.check_channels(name, input, weight, bias, skip)
    _channels.check_running(name, input, running_mean, running_var, True, weight)
    for argument, tensor in (("epsilon_1", epsilon_1), ("epsilon_y", epsilon_y)):
        if training and tensor is None:
            _checks.fail(name, argument, "be given in training", None)
        _checks.check_parameter(name, argument, tensor, (input.shape[1],), input)
    check_settings(name, alpha_fwd, alpha_bkw, guard, clamp)
    _checks.check_eps(name, eps)
    _checks.check_eps(name, ls_eps, "ls_eps")
    activation = _checks.check_activation(name, activation)
    backend = requested(backend, name, input)
    bound = clamp if guard == "clamp" else math.inf
    scaling = guard == "layer_scaling"
    settings = Settings(alpha_bkw, stable, eps, scaling, ls_eps, bound, activation, slope, backend)
    given, dtype, N = (input, skip, weight, bias), statistic_dtype(input), input.shape[0]
    if not training:
        mean, var = (t.detach().to(dtype) for t in (running_mean, running_var))
        return call(OnlineNormRecipe, *given, mean, var, None, None, None, settings)[0]

    def run(state):
        rates = rates_of(input, alpha_fwd, state[2] if len(state) > 2 else None)
        before = [t.to(dtype) for t in state[:2]]
        y, *after = call(
            OnlineNormRecipe, *given, *before, rates, epsilon_y, epsilon_1, settings, derivative=rates is None
        )
        return y, [*(after if input.numel() else before), *(n + N for n in state[2:])]

    state = [running_mean, running_var, *([] if num_samples_tracked is None else [num_samples_tracked])]
    return advance(running_mean, state, run)


def check_settings(name: str, alpha_fwd: float, alpha_bkw: float, guard: str | None, clamp: float) -> None:
    for argument, value in (("alpha_fwd", alpha_fwd), ("alpha_bkw", alpha_bkw)):
        if not 0 <= value <= 1:
            _checks.fail(name, argument, "be in [0, 1]", value)
    if guard not in GUARDS:
        _checks.fail(name, "guard", f"be one of {', '.join(map(repr, GUARDS))}", repr(guard))
    if not clamp > 0:
        _checks.fail(name, "clamp", "be positive", clamp)
