"""Normalization Propagation (Arpit et al. 2016, arXiv:1603.01431)."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels import _checks
from normkernels._backends import requested
from normkernels.moments import Moments, activation_moments
from normkernels.ops._normprop import Product, cached_epilogue, convolution, epilogue
from normkernels.ops._normprop_recipe import NormPropRecipe, Settings
from normkernels.ops._ways import call, function, wants_grad
from normkernels.ops.weight_norm import weight_norm


@functools.cache
def callable_moments(activation: Callable[[Tensor], Tensor]) -> Moments:
    return activation_moments(activation)


def check_activation(name: str, activation: Any, slope: Any) -> None:
    """A name or a callable; with ``"prelu"`` a tensor for its slope, else none."""
    if activation != "prelu":
        if not callable(activation):
            _checks.check_activation(name, activation)
        if isinstance(slope, Tensor):
            _checks.fail(name, "slope", "be a float or None without activation 'prelu'", "a tensor")
    elif not isinstance(slope, Tensor):
        _checks.fail(name, "slope", "be a tensor with activation 'prelu'", slope)


def run(
    name: str,
    product: Product,
    input: Tensor,
    weight: Tensor,
    gain: Tensor,
    bias: Tensor | None,
    activation: Any,
    slope: float | Tensor | None,
    backend: str | None,
    moments: Moments | None = None,
) -> Tensor:
    """What both functions do after their own checks."""
    backend = requested(backend, name, input)
    if torch.is_autocast_enabled(input.device.type) and input.dtype != torch.float64:
        input = input.to(torch.get_autocast_dtype(input.device.type))
        weight, gain, bias, slope = (_beside(t, input) for t in (weight, gain, bias, slope))
    if callable(activation):
        c1, c2, _ = moments or callable_moments(activation)
        u = product(input, weight_norm(weight, gain, backend=backend).to(input.dtype))
        shape = (-1,) + (1,) * len(product.stride)
        y: Any = activation(u if bias is None else u + bias.to(u.dtype).view(shape))
        return (y - c2) / c1
    leak, channel_slope = 0.0, None
    if isinstance(slope, Tensor):
        channel_slope = slope.reshape(-1).expand(len(weight))
    elif activation == "leaky_relu":
        leak = 0.01 if slope is None else float(slope)
    found = epilogue if torch.compiler.is_compiling() else cached_epilogue
    e = found(activation or "identity", leak, input.dtype)
    settings = Settings(product, e, wants_grad(input, weight, gain, bias, channel_slope), backend)
    return call(NormPropRecipe, input, weight, gain, bias, channel_slope, settings)[0]


def _beside(t: Any, input: Tensor) -> Any:
    """A parameter in the dtype of input or wider: bfloat16 beside float16 is float32."""
    return t.float() if isinstance(t, Tensor) and t.dtype.itemsize == 2 and t.dtype != input.dtype else t


def _check(name: str, input, weight, gain, bias, activation, slope) -> None:
    _checks.check_input(name, input)
    _checks.check_dense(name, "weight", weight)
    _checks.check_parameter(name, "weight", weight, tuple(weight.shape), input)
    for argument, tensor in (("gain", gain), ("bias", bias)):
        if tensor is None and argument == "gain":
            _checks.fail(name, argument, "be given", None)
        _checks.check_parameter(name, argument, tensor, (len(weight),), input)
    check_activation(name, activation, slope)
    if isinstance(slope, Tensor):
        _checks.check_parameter(name, "slope", slope, ((1,) if slope.numel() == 1 else (len(weight),)), input)


@functools.partial(function, takes_functions=True)
def normprop_linear(
    input: Tensor, weight: Tensor, gain: Tensor, bias: Tensor | None = None,
    activation: str | Callable[[Tensor], Tensor] | None = "relu", slope: float | Tensor | None = None, *,
    backend: str | None = None, moments: Moments | None = None,
) -> Tensor:  # fmt: skip
    r"""A linear layer whose output has unit statistics if its input has: Normalization Propagation.

    .. math::
        o_i = \frac{1}{c_1}\Big[f\Big(\gamma_i \frac{W_i \cdot x}{\|W_i\|_2} + \beta_i\Big) - c_2\Big]

    :math:`c_2` and :math:`c_1` are the mean and standard deviation of f of a standard normal variable: constants, so
    that no statistic is taken from the data, and a batch may have any size.

    Args:
        input: x, ``(*, in_features)``; float64, float32, bfloat16 or float16; any strides.
        weight: W, ``(M, in_features)``, input's dtype or float32, a filter in each row.
        gain: :math:`\gamma`, ``(M,)``, input's dtype or float32. 1 / jacobian_factor keeps the gradient's size from
            layer to layer, 1 that of the activations; the modules start with the former.
        bias: :math:`\beta`, ``(M,)``, input's dtype or float32; None means 0.
        activation: f: None, a name of ``normkernels.ACTIVATIONS``, ``"prelu"``, or a callable on tensors, whose moments
            are then found by quadrature (:func:`normkernels.activation_moments`).
        slope: for negative values: a float for ``"leaky_relu"`` (None: 0.01), a tensor of one or M values for
            ``"prelu"``, whose gradient includes that through :math:`c_1` and :math:`c_2`.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.
        moments: of a callable, where they are at hand; torch.compile cannot look into the quadrature.

    Returns:
        o, ``(*, M)``, in input's dtype, under autocast in autocast's. The product is torch's own, from filters that are
        scaled in float32 (float64 for float64) and rounded once to the dtype of the product.

    Raises:
        ValueError: a shape, dtype, device, layout, name or number is wrong (the message says which).
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, weight, gain, bias, slope; twice differentiable (through the reference). That of weight is at
    right angles to each filter; a filter of zeros has no direction: it scales to 0 and gets 0. Of o's size nothing is
    kept but o itself, where o tells f': with piecewise linear activations, and in 32 and 64 bits with tanh, sigmoid,
    elu, selu, softplus and softsign (an in-place op on o is then an error, as after torch.tanh); with none, nothing.
    The others keep the pre-activation, and so does prelu.
    Deterministic: as torch's product.

    Example:
        >>> x, w, gain = torch.randn(5, 16), torch.randn(8, 16), torch.ones(8)
        >>> nk.functional.normprop_linear(x, w, gain, activation="tanh").shape
        torch.Size([5, 8])

    Source: Arpit et al. 2016, arXiv:1603.01431, equations 9 and 12.
    """
    name = "normprop_linear"
    _checks.check_input(name, input)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        _checks.fail(name, "weight", "be a tensor (out_features, in_features)", getattr(weight, "shape", weight))
    if input.dim() == 0 or input.shape[-1] != weight.shape[1]:
        _checks.fail(name, "input", f"end in the {weight.shape[1]} features of weight", f"shape {tuple(input.shape)}")
    _check(name, input, weight, gain, bias, activation, slope)
    return run(name, Product(), input, weight, gain, bias, activation, slope, backend, moments)


@functools.partial(function, takes_functions=True)
def normprop_conv(
    input: Tensor, weight: Tensor, gain: Tensor, bias: Tensor | None = None, stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0, dilation: int | tuple[int, ...] = 1, groups: int = 1,
    activation: str | Callable[[Tensor], Tensor] | None = "relu", slope: float | Tensor | None = None, *,
    backend: str | None = None, moments: Moments | None = None,
) -> Tensor:  # fmt: skip
    r"""A convolution whose output has unit statistics if its input has: Normalization Propagation.

    .. math::
        o_i = \frac{1}{c_1}\Big[f\Big(\gamma_i \frac{W_i * x}{\|W_i\|_F} + \beta_i\Big) - c_2\Big]

    with the norm over all elements of a filter. Zero padding pads with the mean of the input, for that is 0.

    Args:
        input: x, ``(N, C, *)`` or ``(C, *)`` with one to three dims of space; channels_last is kept.
        weight: W, ``(M, C / groups, *kernel_size)``, a filter in each slice along dim 0.
        stride, padding, dilation, groups: as ``torch.nn.functional.conv2d``; padding may be ``"same"`` or ``"valid"``.
        gain, bias, activation, slope, backend, moments: as in :func:`normprop_linear`.

    Returns:
        o, in the shape and layout of torch's convolution; dtypes as in :func:`normprop_linear`.

    Raises, gradients, determinism: as in :func:`normprop_linear`.

    Example:
        >>> x, w, gain = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.ones(4)
        >>> nk.functional.normprop_conv(x, w, gain, padding=1).shape
        torch.Size([2, 4, 8, 8])

    Source: Arpit et al. 2016, arXiv:1603.01431, equations 11 and 12.
    """
    name = "normprop_conv"
    _checks.check_input(name, input)
    if not isinstance(weight, Tensor) or weight.dim() not in (3, 4, 5):
        rule = "be a tensor (out_channels, in_channels / groups, *kernel_size) of 1 to 3 dims of space"
        _checks.fail(name, "weight", rule, tuple(weight.shape) if isinstance(weight, Tensor) else weight)
    _check(name, input, weight, gain, bias, activation, slope)
    space = weight.dim() - 2
    product, pads = convolution(name, weight, stride, padding, dilation, groups)
    if input.dim() not in (space + 1, space + 2) or input.shape[-space - 1] != weight.shape[1] * groups:
        rule = f"have {weight.shape[1] * groups} channels and {space} dims of space, with a batch or without"
        _checks.fail(name, "input", rule, f"shape {tuple(input.shape)}")
    x = input if input.dim() == weight.dim() else input.unsqueeze(0)
    x = F.pad(x, pads) if any(pads) else x
    for d in range(space):
        reach = product.dilation[d] * (weight.shape[2 + d] - 1) + 1
        if x.shape[2 + d] + 2 * product.padding[d] < reach:
            rule = f"be at least as large as the dilated kernel ({reach}) in dim {d - space}, padding included"
            _checks.fail(name, "input", rule, f"shape {tuple(input.shape)}")
    y = run(name, product, x, weight, gain, bias, activation, slope, backend, moments)
    return y if input.dim() == weight.dim() else y.squeeze(0)
