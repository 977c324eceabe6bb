"""NormPropLinear and NormPropConv1d, 2d, 3d: layers that carry unit statistics from input to output."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.modules.utils import _pair, _single, _triple

from normkernels import _checks
from normkernels.backends import check_name
from normkernels.modules._leaf import leaf
from normkernels.moments import Moments, activation_moments
from normkernels.ops.normprop import callable_moments, check_activation, normprop_conv, normprop_linear
from normkernels.ops.weight_norm import project

Activation = str | Callable[[Tensor], Tensor] | None


class _NormProp(nn.Module):
    """What the layers share: parameters and their first values.

    Every call scales the filters anew: fused optimizers, ``.data`` and flat parameters change a weight without a trace,
    and to compare it with what it was costs what scaling costs. :func:`normkernels.fold_` scales once for inference.
    """

    weight: nn.Parameter
    gain: nn.Parameter
    bias: nn.Parameter | None
    slope: nn.Parameter | float | None
    moments: Moments | None

    def _set_up(
        self, shape: tuple[int, ...], activation: Activation, gain_init: str | float, bias: bool,
        slope: float | None, num_parameters: int, device, dtype, backend: str | None,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        if gain_init != "jacobian" and not isinstance(gain_init, int | float):
            _checks.fail(name, "gain_init", "be 'jacobian' or a number", repr(gain_init))
        if num_parameters not in (1, shape[0]):
            _checks.fail(name, "num_parameters", f"be 1 or the number of filters, {shape[0]}", num_parameters)
        check_activation(name, activation, torch.empty(0) if activation == "prelu" else None)
        self.backend = check_name(backend, name)
        self.activation, self.gain_init, self.slope_init = activation, gain_init, slope
        self.moments = callable_moments(activation) if callable(activation) else None
        made = {"device": device, "dtype": dtype}
        self.weight, self.gain = nn.Parameter(torch.empty(shape, **made)), nn.Parameter(torch.empty(shape[0], **made))
        self.register_parameter("bias", nn.Parameter(torch.empty(shape[0], **made)) if bias else None)
        self.slope = nn.Parameter(torch.empty(num_parameters, **made)) if activation == "prelu" else slope
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight Glorot-uniform, bias 0, gain 1 / jacobian_factor of the activation (or ``gain_init``)."""
        nn.init.xavier_uniform_(self.weight)
        moments = self.moments or activation_moments(self.activation, self.slope_init)
        nn.init.constant_(
            self.gain, 1 / moments.jacobian_factor if self.gain_init == "jacobian" else float(self.gain_init)
        )
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if isinstance(self.slope, nn.Parameter):
            nn.init.constant_(self.slope, 0.25 if self.slope_init is None else self.slope_init)

    def _shown(self) -> str:
        shown = [f"activation={getattr(self.activation, '__name__', repr(self.activation))}"]
        shown += [f"slope={self.slope}"] if isinstance(self.slope, float) else []
        shown += [f"num_parameters={self.slope.numel()}"] if isinstance(self.slope, nn.Parameter) else []
        shown += [f"gain_init={self.gain_init!r}"] if self.gain_init != "jacobian" else []
        shown += ["bias=False"] if self.bias is None else []
        return ", ".join(shown + ([f"backend={self.backend!r}"] if self.backend else []))


class NormPropLinear(_NormProp):
    """:func:`normkernels.functional.normprop_linear` with its parameters: a hidden layer, activation included.

    Args:
        in_features, out_features: sizes of an input and an output.
        activation: None, a name of ``normkernels.ACTIVATIONS``, ``"prelu"`` (its slope is learnt), or a callable.
        gain_init: ``"jacobian"``, 1 / jacobian_factor of the activation, for stable gradients; or a number: 1 for unit
            activations.
        bias: whether there is one.
        slope: of ``"leaky_relu"`` (0.01), or the first one of ``"prelu"`` (0.25).
        num_parameters: of ``"prelu"``: 1 or out_features.

    Shape: ``(*, in_features)`` to ``(*, out_features)``. The input is to have mean 0 and variance 1: see
    :class:`normkernels.DataNorm`. The last layer of a net is a plain ``torch.nn.Linear``.
    Call :func:`normkernels.project_unit_norm_` after each optimizer step, as the paper does; weight decay then acts on
    gain and bias only, so leave the weight out of it.

    Raises ValueError, naming the argument, if a number or a name is wrong.
    """

    def __init__(
        self, in_features: int, out_features: int, activation: Activation = "relu", *,
        gain_init: str | float = "jacobian", bias: bool = True, slope: float | None = None, num_parameters: int = 1,
        device=None, dtype=None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        shape = (out_features, in_features)
        self._set_up(shape, activation, gain_init, bias, slope, num_parameters, device, dtype, backend)

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input)
        return normprop_linear(
            input, self.weight, self.gain, self.bias, self.activation, self.slope, backend=self.backend,
            moments=self.moments,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self._shown()}"


class _NormPropConv(_NormProp):
    """:func:`normkernels.functional.normprop_conv` with its parameters: a convolution, activation included.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as in
            ``torch.nn.Conv2d``.
        activation, gain_init, bias, slope, num_parameters: as in :class:`NormPropLinear`.

    Zero padding pads with the mean of the input, for that is 0.

    Raises ValueError, naming the argument, if a number or a name is wrong.
    """

    _sizes: Callable[[Any], tuple[int, ...]]

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1, padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1, groups: int = 1, activation: Activation = "relu", *,
        gain_init: str | float = "jacobian", bias: bool = True, slope: float | None = None, num_parameters: int = 1,
        padding_mode: str = "zeros", device=None, dtype=None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name, sizes = type(self).__name__, type(self)._sizes
        for argument, n in (("in_channels", in_channels), ("out_channels", out_channels)):
            if groups < 1 or n % groups:
                _checks.fail(name, argument, f"be divisible by groups, {groups}", n)
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            _checks.fail(name, "padding_mode", "be 'zeros', 'reflect', 'replicate' or 'circular'", repr(padding_mode))
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = sizes(kernel_size), sizes(stride), sizes(dilation)
        self.padding = padding if isinstance(padding, str) else sizes(padding)
        self.padding_mode = padding_mode
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self._set_up(shape, activation, gain_init, bias, slope, num_parameters, device, dtype, backend)

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input)
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._pads(), self.padding_mode), 0
        return normprop_conv(
            input, self.weight, self.gain, self.bias, self.stride, padding, self.dilation, self.groups,
            self.activation, self.slope, backend=self.backend, moments=self.moments,
        )  # fmt: skip

    def _pads(self) -> list[int]:
        """What F.pad adds, the last dim first."""
        if not isinstance(self.padding, str):
            return [p for p in reversed(self.padding) for _ in range(2)]
        same = self.padding == "same"
        total = [same * d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return [p for t in reversed(total) for p in (t // 2, t - t // 2)]

    def extra_repr(self) -> str:
        plain = {"stride": (1,), "padding": (0,), "dilation": (1,)}
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for k in ("padding", "dilation"):
            if getattr(self, k) != plain[k] * len(self.kernel_size):
                shown.append(f"{k}={getattr(self, k)!r}")
        shown += [f"groups={self.groups}"] if self.groups != 1 else []
        shown += [f"padding_mode={self.padding_mode!r}"] if self.padding_mode != "zeros" else []
        return ", ".join([*shown, self._shown()])


class NormPropConv1d(_NormPropConv):
    __doc__ = _NormPropConv.__doc__
    _sizes = staticmethod(_single)


class NormPropConv2d(_NormPropConv):
    __doc__ = _NormPropConv.__doc__
    _sizes = staticmethod(_pair)


class NormPropConv3d(_NormPropConv):
    __doc__ = _NormPropConv.__doc__
    _sizes = staticmethod(_triple)


def project_unit_norm_(model: nn.Module) -> None:
    """Scale every filter of every NormProp layer of ``model`` to length 1, in place, after ``optimizer.step()``.

    The layers' outputs stay as they are: only the size of later steps changes. One launch for each device and dtype;
    momentum and other state of the optimizer are left alone. A filter of zeros stays so.
    Source: Arpit et al. 2016, arXiv:1603.01431, section 4.
    """
    layers = [module for module in model.modules() if isinstance(module, _NormProp)]
    for backend in dict.fromkeys(layer.backend for layer in layers):
        project([layer.weight for layer in layers if layer.backend == backend], backend)
