"""Group normalisation (Wu & He 2018, arXiv:1803.08494)."""

from math import prod

from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels._library import Kernel, kernel
from normkernels.ops import _channels, _images
from normkernels.ops._channels import BWD, FWD, ChannelsRecipe, Settings
from normkernels.ops._ways import call, function

group_norm_fwd: Kernel = kernel("group_norm_fwd" + FWD)
group_norm_bwd: Kernel = kernel("group_norm_bwd" + BWD)


@function
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
    skip: Tensor | None = None, gate: Tensor | None = None, activation: Activation | None = None, slope: float = 0.01,
    backend: str | None = None,
) -> Tensor:  # fmt: skip
    r"""Group normalisation: each group of C / G adjacent channels of each image over those channels and space.

    .. math::
        u = \frac{x - \mu_{ng}}{\sqrt{\sigma^2_{ng} + \epsilon}} w_c + b_c, \quad
        y = \text{activation}(u + \text{skip}), \text{ or } u \cdot \text{activation}(\text{gate})

    with the mean and the biased variance of the group g of image n that channel c is in.

    Args:
        input: x, ``(N, C)``, ``(N, C, L)``, ``(N, C, H, W)``, ... in float64, float32, bfloat16 or float16. A
            contiguous or channels_last layout is read and kept as it is; other strides are copied once.
        num_groups: G; must divide C. 1 is layer norm over the whole image, C is instance norm.
        weight: w, ``(C,)``, in input's dtype or float32; None means 1. ``(N, C)`` is one for each image: 1 + scale of
            adaptive group norm (diffusion), the gain of FiLM, with C groups that of AdaIN.
        bias: b, ``(C,)``, or ``(N, C)`` where weight is not ``(C,)``; in input's dtype or float32; None means 0.
        eps: added to the variance (units of x²).
        skip: input's shape; added after the affine, before the activation. y is in the wider dtype of
            both.
        gate: input's shape and dtype, without a skip; the activation is then the gate's, and multiplies. None: the
            activation is of u.
        activation: None or a name of ``normkernels.ACTIVATIONS`` (diffusion models: ``"silu"``), of u or of the gate.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, input's shape, dtype and layout. Statistics are in float32 (float64 for float64), and y is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, or the whole input is one value per group.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, skip, weight, bias, gate; twice differentiable (through the reference). Backward keeps x (and
    skip, where an activation follows it, or the gate) and two statistics per group.
    Deterministic: yes, and an image's result does not depend on the other images.
    Differs from torch: channels_last stays so, and statistics of 16-bit input are kept in float32.
    Under autocast as torch: 16-bit input is taken in float32 on CUDA, and as it is on the CPU.

    Example:
        >>> nk.functional.group_norm(torch.randn(2, 8, 5, 5), 4, activation="silu").shape
        torch.Size([2, 8, 5, 5])

    Source: Wu & He 2018, arXiv:1803.08494, eq. 1 to 7.
    """
    name = "group_norm"
    _checks.check_eps(name, eps)
    images = _images.has_tables(input, weight, bias)
    check = _images.check_images if images else _channels.check_channels
    input, skip, weight, bias = check(name, input, weight, bias, skip, gate)
    epilogue = _channels.check_activation(name, activation, gate)
    backend = requested(backend, name, input)
    N, C = input.shape[:2]
    if num_groups < 1 or C % num_groups:
        _checks.fail(name, "num_groups", f"divide the {C} channels of input", num_groups)
    if N * C * prod(input.shape[2:]) == num_groups:
        _checks.fail(name, "input", "have more than one value per group", f"shape {tuple(input.shape)}")
    settings = Settings(group_norm_fwd, group_norm_bwd, False, num_groups, eps, epilogue, slope, backend)
    return call(_images.ImagesRecipe if images else ChannelsRecipe, input, skip, weight, bias, None, None, settings)[0]
