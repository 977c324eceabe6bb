"""Batch Renormalization (Ioffe 2017, arXiv:1702.03275)."""

from math import prod

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels.ops import _channels
from normkernels.ops._batch_renorm_recipe import BatchRenormRecipe, Ramp, Settings
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._channels import ChannelsRecipe
from normkernels.ops._state import advance, sound
from normkernels.ops._ways import call, function
from normkernels.ops.batch_norm import batch_norm_apply, batch_norm_bwd


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
