"""One NormProp layer as a plain one, its activation, and the scale and shift that follow it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normkernels._backends import requested
from normkernels.modules.normprop import NormPropLinear
from normkernels.moments import activation_moments, prelu_moments
from normkernels.ops._normprop_recipe import scale_filters
from normkernels.ops.normprop import callable_moments

KINDS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "elu": nn.ELU, "selu": nn.SELU,
    "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus, "hardtanh": nn.Hardtanh, "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish, "mish": nn.Mish, "softsign": nn.Softsign,
}  # fmt: skip


class Affine(nn.Module):
    """x * scale + shift of each channel: what could not be folded any further."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, input: Tensor) -> Tensor:
        return input * self.scale.to(input.dtype) + self.shift.to(input.dtype)


class Elementwise(nn.Module):
    """An activation that torch.nn has no module for."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input)


class Pending(NamedTuple):
    """Scale and shift, one or one for each channel of so many dims of space, that still have to follow."""

    scale: Tensor
    shift: Tensor
    space: int

    def affine(self) -> list[nn.Module]:
        """The module that does so, if there is something to do."""
        if (self.scale == 1).all() and (self.shift == 0).all():
            return []
        shape = (-1,) + (1,) * self.space
        return [Affine(self.scale.view(shape), self.shift.view(shape))]


def plain(layer: Any) -> Any:
    """The linear layer or convolution with the scaled filters."""
    weight = scale_filters(layer.weight, layer.gain, layer.weight.dtype, requested(layer.backend, "fold_"))[0]
    made = {"device": weight.device, "dtype": weight.dtype}
    if isinstance(layer, NormPropLinear):
        found: Any = nn.Linear(layer.in_features, layer.out_features, **made)
    else:
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        )
        found = KINDS[weight.dim()](**{k: getattr(layer, k) for k in names}, **made)
    found.weight.copy_(weight)
    found.bias.copy_(0 if layer.bias is None else layer.bias)
    return found.train(layer.training)


def activation(layer: Any) -> tuple[list[nn.Module], Pending]:
    """The activation as modules, and its constants."""
    modules, (c1, c2) = _activation(layer)
    made = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    scale, shift = (torch.as_tensor(t, **made).reshape(-1) for t in (1 / c1, -c2 / c1))
    return modules, Pending(scale, shift, layer.weight.dim() - 2)


def _activation(layer: Any) -> tuple[list[nn.Module], tuple[Any, Any]]:
    f, slope = layer.activation, layer.slope
    if f == "prelu":
        module = nn.PReLU(slope.numel(), device=slope.device, dtype=slope.dtype)
        module.weight.copy_(slope)
        return [module], prelu_moments(slope.detach())
    if callable(f):
        return [f if isinstance(f, nn.Module) else Elementwise(f)], callable_moments(f)[:2]
    if f in (None, "identity"):
        return [], (1.0, 0.0)
    constants = activation_moments(f, slope)[:2]
    if f == "leaky_relu":
        return [nn.LeakyReLU(0.01 if slope is None else slope)], constants
    if f == "gelu_tanh":
        return [nn.GELU("tanh")], constants
    return [MODULES[f]()], constants


def take(layer: Any, pending: Pending) -> list[nn.Module] | None:
    """The layer with the scale and shift before it in its weight and bias, after a padding if it needs one; or None."""
    weight, groups = layer.weight, getattr(layer, "groups", 1)
    linear = isinstance(layer, nn.Linear)
    if type(layer) not in (nn.Linear, *KINDS.values()):
        return None  # a parametrization, or a subclass: its weight is not what it multiplies with
    if linear and pending.space > 0 and pending.scale.numel() > 1:
        return None  # flattened: which feature is which channel is not known here
    pads = [] if linear or layer.padding_mode != "zeros" else list(layer._reversed_padding_repeated_twice)
    value = -pending.shift / pending.scale  # what the raw activation is where the normalised one is 0
    if any(pads) and value.numel() > 1:
        return None
    inputs = weight.shape[1] * groups
    scale, shift = (t.expand(inputs).view(groups, -1) for t in (pending.scale, pending.shift))
    by_group = weight.detach().view(groups, len(weight) // groups, weight.shape[1], -1).double()
    moved = (by_group.sum(-1) * shift.double()[:, None]).sum(-1).view(-1)
    weight.copy_((by_group * scale.double()[:, None, :, None]).view(weight.shape))
    if layer.bias is None:
        layer.bias = nn.Parameter(weight.new_zeros(len(weight)))
    layer.bias.copy_(layer.bias.double() + moved)
    if not any(pads):
        return [layer]
    layer.padding = (0,) * (weight.dim() - 2)
    layer._reversed_padding_repeated_twice = [0] * len(pads)  # type: ignore[assignment]
    pad = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[weight.dim() - 3]
    return [pad(tuple(pads), value.item()), layer]
