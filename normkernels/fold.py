"""Folding NormProp layers into plain ones for inference."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normkernels.backends.reference._activations import activation as act
from normkernels.modules.normprop import NormPropLinear, _NormProp, _NormPropConv
from normkernels.moments import activation_moments, prelu_moments
from normkernels.ops.normprop import callable_moments

KINDS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
MODULES = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "elu": nn.ELU, "selu": nn.SELU,
    "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus, "hardtanh": nn.Hardtanh, "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish, "mish": nn.Mish, "softsign": nn.Softsign,
}  # fmt: skip
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
MEAN_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
PLAIN = (*MAX_POOLS, *MEAN_POOLS, nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Affine(nn.Module):
    """x * scale + shift of each channel: what could not be folded any further."""

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


@torch.no_grad()
def fold_(model: nn.Module) -> nn.Module:
    r"""Replace every NormProp layer of ``model`` by a plain layer and activation that together compute the same.

    The norm and gain go into the weight. The constants of :math:`(f(u) - c_2) / c_1` go into the weight and bias of the
    next linear layer or convolution of the same ``torch.nn.Sequential`` (nested ones count as one), past pooling,
    flattening and dropout; where that one pads with zeros, the raw activation is padded with :math:`c_2` instead. Where
    that would be wrong (average pooling that counts padded zeros, a slope for each channel before padding, anything else
    in between, or nothing after it) they stay, as a module that scales and shifts.

    Args:
        model: changed in place, and returned; its parameters are new ones, so fold after training.

    Source: Arpit et al. 2016, arXiv:1603.01431, equations 9 to 12; the folding is ours.
    """
    for chain in _chains(model):
        pending = None  # scale and shift of what flows here, and where they stand
        for parent, name, module in chain:
            folded, pending = _step(module, pending, parent, name)
            if folded is not module:
                setattr(parent, name, folded)
        _settle(pending)
    return model


def _chains(model: nn.Module) -> Iterator[list[tuple[nn.Module, str, nn.Module]]]:
    """The modules that feed each other, as (parent, name, module); a module that is in no Sequential is alone."""
    if isinstance(model, nn.Sequential):
        chain = list(_flat(model))
        yield chain
        inner = [module for _, _, module in chain if not isinstance(module, _NormProp)]
    else:
        alone = [(model, name, child) for name, child in model.named_children() if not isinstance(child, nn.Sequential)]
        yield from ([link] for link in alone if isinstance(link[2], _NormProp))
        inner = [child for child in model.children() if not isinstance(child, _NormProp)]
    for module in inner:
        yield from _chains(module)


def _flat(sequence: nn.Sequential) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for name, child in sequence.named_children():
        if isinstance(child, nn.Sequential):
            yield from _flat(child)
        else:
            yield sequence, name, child


class _Pending:
    """(scale, shift), one or one for each channel, after the module ``parent.name``, for somebody to take over."""

    def __init__(self, scale: Tensor, shift: Tensor, parent: nn.Module, name: str, space: int) -> None:
        self.scale, self.shift, self.parent, self.name, self.space = scale, shift, parent, name, space

    @property
    def nothing(self) -> bool:
        return bool((self.scale == 1).all() and (self.shift == 0).all())


def _settle(pending: _Pending | None) -> None:
    """Leave scale and shift where they are, as a module of their own."""
    if pending is None or pending.nothing:
        return
    shape = (-1,) + (1,) * pending.space
    affine = Affine(pending.scale.view(shape), pending.shift.view(shape))
    before = getattr(pending.parent, pending.name)
    setattr(pending.parent, pending.name, nn.Sequential(*before, affine))


def _step(module: nn.Module, pending, parent: nn.Module, name: str) -> tuple[nn.Module, _Pending | None]:
    """What takes the place of one module, and the scale and shift that wait behind it."""
    layer = isinstance(module, _NormProp)
    if pending is not None:
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or layer:
            plain = _plain(module) if layer else module
            taken = _take(plain, pending)
            if taken is None:
                _settle(pending)
                taken = [plain]
            return _rest(module, taken, parent, name) if layer else (_joined(taken), None)
        if isinstance(module, PLAIN) or _mean_pool(module):
            flattens = isinstance(module, nn.Flatten | nn.Unflatten) and pending.scale.numel() > 1
            if not flattens:
                return module, pending
        _settle(pending)
        return module, None
    return _rest(module, [_plain(module)], parent, name) if layer else (module, None)


def _joined(modules: list[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _mean_pool(module: nn.Module) -> bool:
    """An average pooling that counts no padded zeros: the mean of a shifted map is the shifted mean."""
    if not isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
        return False
    padding = module.padding if isinstance(module.padding, tuple) else (module.padding,)
    exact = getattr(module, "divisor_override", None) is None
    return exact and (not any(padding) or not module.count_include_pad)


def _plain(layer: nn.Module) -> nn.Module:
    """The linear layer or convolution with the scaled filters."""
    weight = layer.filters(layer.weight.dtype)[0]
    made = {"device": weight.device, "dtype": weight.dtype}
    if isinstance(layer, NormPropLinear):
        plain: nn.Module = nn.Linear(layer.in_features, layer.out_features, **made)
    else:
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        plain = KINDS[weight.dim()](**{k: getattr(layer, k) for k in names}, **made)
    plain.weight.copy_(weight)
    plain.bias.copy_(0 if layer.bias is None else layer.bias)
    return plain.train(layer.training)


def _rest(layer: nn.Module, modules: list[nn.Module], parent, name) -> tuple[nn.Module, _Pending]:
    """The plain layer and its activation, with the constants waiting behind."""
    function, (c1, c2) = _activation(layer)
    made = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    scale, shift = (torch.as_tensor(t, **made).reshape(-1) for t in (1 / c1, -c2 / c1))
    pending = _Pending(scale, shift, parent, name, layer.weight.dim() - 2)
    return nn.Sequential(*modules, *function), pending


def _activation(layer) -> tuple[list[nn.Module], tuple]:
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


def _take(layer: nn.Module, pending: _Pending) -> list[nn.Module] | None:
    """The layer with the scale and shift before it in its weight and bias, after a padding if it needs one; or None."""
    weight, groups = layer.weight, getattr(layer, "groups", 1)
    linear = isinstance(layer, nn.Linear)
    if linear and pending.space > 0 and pending.scale.numel() > 1:
        return None  # flattened: which feature is which channel is not known here
    pads = [] if linear or layer.padding_mode != "zeros" else list(layer._reversed_padding_repeated_twice)
    value = -pending.shift / pending.scale  # of the raw activation where the normalised one is 0
    if any(pads) and value.numel() > 1:
        return None
    inputs = weight.shape[1] * groups
    scale, shift = (t.expand(inputs).view(groups, -1) for t in (pending.scale, pending.shift))
    by_group = weight.detach().view(groups, len(weight) // groups, weight.shape[1], -1).double()
    moved = (by_group.sum(-1) * shift.double()[:, None]).sum(-1).view(-1)
    weight.copy_((by_group * scale.double()[:, None, :, None]).view(weight.shape))
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(weight[:, 0].flatten(1)[:, 0]))
    layer.bias.copy_(layer.bias.double() + moved)
    if not any(pads):
        return [layer]
    layer.padding = (0,) * (weight.dim() - 2)
    layer._reversed_padding_repeated_twice = [0] * len(pads)
    pad = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[weight.dim() - 3]
    return [pad(tuple(pads), value.item()), layer]
