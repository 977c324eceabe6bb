"""Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

from math import prod

from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels._library import Kernel, kernel
from normkernels.ops import _channels
from normkernels.ops._channels import BWD, FWD, ChannelsRecipe, Settings
from normkernels.ops._ways import call, function

batch_norm_fwd: Kernel = kernel("batch_norm_fwd" + FWD)
batch_norm_bwd: Kernel = kernel("batch_norm_bwd" + BWD)
# the same with mean and var given: y = act((x - mean) / sqrt(var + eps) * weight + bias + skip)
batch_norm_apply: Kernel = kernel(
    "batch_norm_apply(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor(a!) y, "
    "float eps, str activation, float slope, bool channels_last)"
)

# What one process of many computes when statistics span them all. Forward: moments, then batch_norm_apply with the
# merged ones; backward: sums over dy and over dy * xhat, then dx from their means over all processes. Statistics and
# sums are (C,) or (1, C) in float32 (float64 for float64); dy here means dy * act'(u).
batch_norm_moments: Kernel = kernel("batch_norm_moments(Tensor x, Tensor(a!) mean, Tensor(b!) var, bool channels_last)")
batch_norm_sums: Kernel = kernel(
    "batch_norm_sums(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
    "Tensor(a!) sum_dy, Tensor(b!) sum_dy_xhat, float eps, str activation, float slope, bool channels_last)"
)
batch_norm_dx: Kernel = kernel(
    "batch_norm_dx(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
    "Tensor mean_dy, Tensor mean_dy_xhat, Tensor(a!) dx, Tensor(b!)? dskip, float eps, str activation, float slope, "
    "bool channels_last)"
)


@function
def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *,
    skip: Tensor | None = None, activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
) -> Tensor:  # fmt: skip
    r"""Batch normalisation of each channel over batch and space, with an optional skip connection and activation.

    .. math::
        \mu_c = \tfrac1M \textstyle\sum_i x_{ci}, \quad \sigma^2_c = \tfrac1M \textstyle\sum_i (x_{ci} - \mu_c)^2, \quad
        y = \text{activation}\Big(\frac{x - \mu_c}{\sqrt{\sigma^2_c + \epsilon}} w_c + b_c + \text{skip}\Big)

    with M the product of batch and space; without ``training`` the running statistics stand for :math:`\mu, \sigma^2`.

    Args:
        input: x, ``(N, C)``, ``(N, C, L)``, ``(N, C, H, W)``, ... in float64, float32, bfloat16 or float16. A
            contiguous or channels_last layout is read and kept as it is; other strides are copied once.
        running_mean, running_var: ``(C,)``, in input's dtype or float32. With ``training`` they are updated in place,
            ``running = (1 - momentum) * running + momentum * batch``, with the unbiased variance (M - 1); or None.
        weight: w, ``(C,)``, in input's dtype or float32; None means 1.
        bias: b, ``(C,)``, in input's dtype or float32; None means 0.
        training: normalise with the statistics of this batch.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance (units of x²).
        skip: input's shape; added after the affine, before the activation; the ResNet block. y is in the wider dtype of
            both.
        activation: None or a name of ``normkernels.ACTIVATIONS``.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, input's shape, dtype and layout. Statistics are in float32 (float64 for float64), and y is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, or there is one value per channel in training.
            The running statistics are then as they were.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, skip, weight, bias; twice differentiable (through the reference). Backward keeps x (and skip,
    where an activation follows it) and two statistics per channel. An empty batch leaves the running statistics alone.
    Deterministic: yes. Under autocast as torch: y keeps input's dtype.

    Example:
        >>> x, mean, var = torch.randn(8, 4, 5, 5), torch.zeros(4), torch.ones(4)
        >>> y = nk.functional.batch_norm(x, mean, var, training=True, activation="relu")
        >>> y.shape
        torch.Size([8, 4, 5, 5])

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2.
    """
    name = "batch_norm"
    _checks.check_eps(name, eps)
    if training and eps == 0:
        _checks.fail(name, "eps", "be positive in training", eps)
    input, skip, weight, bias = _channels.check_channels(name, input, weight, bias, skip)
    _channels.check_running(name, input, running_mean, running_var, not training, weight)
    activation = _checks.check_activation(name, activation)
    backend = requested(backend, name, input)
    N, C = input.shape[:2]
    count = N * prod(input.shape[2:])
    if training and count == 1:
        rule = "have more than one value per channel in training (OnlineNorm, GroupNorm and LayerNorm need no batch)"
        _checks.fail(name, "input", rule, f"shape {tuple(input.shape)}")
    fwd, mean, var = batch_norm_fwd, None, None
    if not training:
        fwd, (mean, var) = batch_norm_apply, _channels.given_statistics(input, running_mean, running_var)
    settings = Settings(fwd, batch_norm_bwd, True, C, eps, activation, slope, backend)
    y, *found = call(ChannelsRecipe, input, skip, weight, bias, mean, var, settings)
    if training and count > 0 and running_mean is not None:
        mean, var = found
        _channels.update_running(running_mean, mean[0], momentum)
        _channels.update_running(running_var, var[0] * (count / (count - 1)), momentum)
    return y
