"""NormPropLinear and NormPropConv1d, 2d, 3d: layers that carry unit statistics from input to output."""

from collections.abc import Iterable
from typing import Never

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.types import Device

from normkernels import _checks
from normkernels._arguments import constructor, refuse
from normkernels.modules._leaf import leaf
from normkernels.modules._normprop import Activation, NormProp
from normkernels.modules._ranks import Ranked
from normkernels.ops.normprop import normprop_conv, normprop_linear
from normkernels.ops.weight_norm import project


class NormPropLinear(NormProp):
    r"""A hidden linear layer, activation included, whose output has mean 0 and variance 1 if its input has.

    .. math::
        o_i = \frac{1}{c_1}\Big[f\Big(\gamma_i \frac{W_i \cdot x}{\|W_i\|_2} + \beta_i\Big) - c_2\Big]

    The input is to have mean 0 and variance 1: see :class:`normkernels.DataNorm`. The last layer of a net is a plain
    ``torch.nn.Linear``. Call :func:`normkernels.project_unit_norm_` after each optimizer step, as the paper does;
    weight decay then acts on gain and bias only, so leave the weight out of it.

    Args:
        in_features, out_features: sizes of an input and an output.
        activation: f: None, a name of ``normkernels.ACTIVATIONS``, ``"prelu"`` (its slope is learnt), or a callable.
        gain_init: ``"jacobian"``, 1 / jacobian_factor of the activation, for stable gradients; or a number: 1 for unit
            activations.
        bias: whether there is one.
        slope: of ``"leaky_relu"`` (0.01), or the first one of ``"prelu"`` (0.25).
        num_parameters: of ``"prelu"``: 1 or out_features.
        device, dtype: of the parameters.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input ``(*, in_features)``; output ``(*, out_features)``.

    Attributes: ``weight`` (Glorot-uniform), ``(out_features, in_features)``; ``gain`` (the paper's :math:`\gamma`, by
    gain_init) and ``bias`` (its :math:`\beta`, 0), ``(out_features,)``, bias or None; ``slope``, learnt with
    ``"prelu"`` only.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.

    Example:
        >>> layer = nk.NormPropLinear(16, 8, "tanh")
        >>> layer(torch.randn(4, 16)).shape
        torch.Size([4, 8])

    Source: Arpit et al. 2016, arXiv:1603.01431, equations 9 and 12; dtypes, gradients and determinism:
    :func:`normkernels.functional.normprop_linear`.
    """

    in_features: int
    out_features: int

    @constructor
    def __init__(
        self, in_features: int, out_features: int, activation: Activation = "relu", *,
        gain_init: str | float = "jacobian", bias: bool = True, slope: float | None = None, num_parameters: int = 1,
        device: Device = None, dtype: torch.dtype | None = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        shape = (out_features, in_features)
        self._set_up(shape, activation, gain_init, bias, slope, num_parameters, device, dtype, backend)

    def forward(self, input: Tensor, **unknown: Never) -> Tensor:
        """o, as the class says."""
        if isinstance(input, Proxy):
            return leaf(self, input)
        if unknown:
            refuse(self, unknown)
        return normprop_linear(
            input, self.weight, self.gain, self.bias, self.activation, self.slope, backend=self.backend,
            moments=self.moments,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self._shown()}"


class _NormPropConv(Ranked, NormProp):
    r"""A hidden convolution, activation included, whose output has mean 0 and variance 1 if its input has.

    .. math::
        o_i = \frac{1}{c_1}\Big[f\Big(\gamma_i \frac{W_i * x}{\|W_i\|_F} + \beta_i\Big) - c_2\Big]

    Zero padding pads with the mean of the input, for that is 0.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as in
            torch.nn.Conv#d.
        activation, gain_init, bias, slope, num_parameters, device, dtype, backend: as in :class:`NormPropLinear`.

    Shape:
        input ``(N, C, #space)`` or ``(C, #space)``; output as of torch.nn.Conv#d.

    Attributes: as in :class:`NormPropLinear`, weight ``(out_channels, in_channels / groups, *kernel_size)``.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.

    Example:
        >>> layer = nk.NormPropConv#d(3, 4, 3, padding=1)
        >>> layer(torch.randn(2, 3, #5)).shape
        torch.Size([2, 4, #5])

    Source: Arpit et al. 2016, arXiv:1603.01431, equations 11 and 12; dtypes, gradients and determinism:
    :func:`normkernels.functional.normprop_conv`.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str

    @constructor
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1, padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1, groups: int = 1, activation: Activation = "relu", *,
        gain_init: str | float = "jacobian", bias: bool = True, slope: float | None = None, num_parameters: int = 1,
        padding_mode: str = "zeros", device: Device = None, dtype: torch.dtype | None = None,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__

        def sizes(given: int | tuple[int, ...]) -> tuple[int, ...]:
            return tuple(given) if isinstance(given, Iterable) else (given,) * self.SPACE

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

    def forward(self, input: Tensor, **unknown: Never) -> Tensor:
        """o, as the class says."""
        if isinstance(input, Proxy):
            return leaf(self, input)
        if unknown:
            refuse(self, unknown)
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


class NormPropConv1d(_NormPropConv, space=1):
    pass


class NormPropConv2d(_NormPropConv, space=2):
    pass


class NormPropConv3d(_NormPropConv, space=3):
    pass


def project_unit_norm_(model: nn.Module) -> None:
    """Scale every filter of every NormProp layer of ``model`` to length 1, in place, after ``optimizer.step()``.

    The layers' outputs stay as they are: only the size of later steps changes. One launch for each device and dtype;
    momentum and other state of the optimizer are left alone. A filter of zeros stays so.

    Args:
        model: every layer inside is projected.

    Example:
        >>> layer = nk.NormPropLinear(16, 8)
        >>> nk.project_unit_norm_(layer)
        >>> torch.allclose(layer.weight.norm(dim=1), torch.tensor(1.0))
        True

    Source: Arpit et al. 2016, arXiv:1603.01431, section 4.
    """
    layers = [module for module in model.modules() if isinstance(module, NormProp)]
    for backend in dict.fromkeys(layer.backend for layer in layers):
        project([layer.weight for layer in layers if layer.backend == backend], backend)
