"""Instance normalisation (Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022)."""

from math import prod

from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels._library import Kernel, kernel
from normkernels.ops import _channels
from normkernels.ops._channels import BWD, FWD, ChannelsRecipe, Settings
from normkernels.ops._ways import call, function
from normkernels.ops.batch_norm import batch_norm_apply, batch_norm_bwd

instance_norm_fwd: Kernel = kernel("instance_norm_fwd" + FWD)
instance_norm_bwd: Kernel = kernel("instance_norm_bwd" + BWD)


@function
def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1,
    eps: float = 1e-5, *, skip: Tensor | None = None, gate: Tensor | None = None,
    activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
) -> Tensor:  # fmt: skip
    r"""Instance normalisation: each channel of each image over space.

    .. math::
        u = \frac{x - \mu_{nc}}{\sqrt{\sigma^2_{nc} + \epsilon}} w_c + b_c, \quad
        y = \text{activation}(u + \text{skip}), \text{ or } u \cdot \text{activation}(\text{gate})

    with the mean and the biased variance of channel c of image n; without ``use_input_stats`` the running statistics.

    Args:
        input: x, ``(N, C, L)``, ``(N, C, H, W)``, ... in float64, float32, bfloat16 or float16. A contiguous or
            channels_last layout is read and kept as it is; other strides are copied once.
        running_mean, running_var: ``(C,)``, in input's dtype or float32. With ``use_input_stats`` they are updated in
            place with the means over the batch of the instances' means and unbiased variances; or None.
        weight: w, ``(C,)``, in input's dtype or float32; None means 1.
        bias: b, ``(C,)``, in input's dtype or float32; None means 0.
        use_input_stats: normalise with the statistics of each instance.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance (units of x²).
        skip: input's shape; added after the affine, before the activation. y is in the wider dtype of
            both.
        gate: input's shape and dtype, without a skip; the activation is then the gate's, and multiplies. None: the
            activation is of u.
        activation: None or a name of ``normkernels.ACTIVATIONS`` (nnU-Net: ``"leaky_relu"``), of u or of the gate.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, input's shape, dtype and layout. Statistics are in float32 (float64 for float64), and y is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, or an instance has one value per channel.
            The running statistics are then as they were.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, skip, weight, bias, gate; twice differentiable (through the reference). Backward keeps x (and
    skip, where an activation follows it, or the gate) and two statistics per instance and channel.
    Deterministic: yes, and an instance's result does not depend on the others.
    Differs from torch: channels_last stays so. Under autocast as torch: y keeps input's dtype.

    Example:
        >>> nk.functional.instance_norm(torch.randn(2, 8, 5, 5), activation="leaky_relu", slope=0.1).shape
        torch.Size([2, 8, 5, 5])

    Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022, eq. 3.
    """
    name = "instance_norm"
    _checks.check_eps(name, eps)
    input, skip, weight, bias = _channels.check_channels(name, input, weight, bias, skip, gate)
    _channels.check_running(name, input, running_mean, running_var, not use_input_stats, weight)
    epilogue = _channels.check_activation(name, activation, gate)
    backend = requested(backend, name, input)
    C, count = input.shape[1], prod(input.shape[2:])
    if use_input_stats and count == 1:
        rule = "have more than one value per channel of an instance (BatchNorm, GroupNorm and LayerNorm do not need it)"
        _checks.fail(name, "input", rule, f"shape {tuple(input.shape)}")
    if use_input_stats:
        settings = Settings(instance_norm_fwd, instance_norm_bwd, False, C, eps, epilogue, slope, backend)
        mean = var = None
    else:  # every instance has the same constants
        settings = Settings(batch_norm_apply, batch_norm_bwd, True, C, eps, epilogue, slope, backend)
        mean, var = _channels.given_statistics(input, running_mean, running_var)
    y, *found = call(ChannelsRecipe, input, skip, weight, bias, mean, var, settings)
    if use_input_stats and input.numel() > 0 and running_mean is not None:
        mean, var = found
        _channels.update_running(running_mean, mean.mean(0), momentum)
        _channels.update_running(running_var, var.mean(0) * (count / (count - 1)), momentum)
    return y
