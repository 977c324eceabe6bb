"""What NormProp's functions are made of: the product of a layer, and the constants of what follows it."""

import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels import _checks
from normkernels.moments import activation_moments
from normkernels.ops._channel_layouts import lies_last, view

# between these values of act(u) its slope is 1 (1 / 6), beyond them another constant: y alone tells it
KINKS = {
    "identity": (-math.inf, math.inf), "relu": (0.0, math.inf), "leaky_relu": (0.0, math.inf), "relu6": (0.0, 6.0),
    "hardtanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0),
}  # fmt: skip
DIGITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}  # of a mantissa
# y tells their slope too, but for what rounding y to 16 bits takes away
SMOOTH = ("tanh", "sigmoid", "elu", "selu", "softplus", "softsign")


class Epilogue(NamedTuple):
    """What follows the product, y = scale act(u) + shift, as the ops want it."""

    activation: str
    leak: float
    scale: float
    shift: float
    kinks: tuple[float, float]
    bounds: tuple[float, float]  # of y where act(u) lies between the kinks
    from_output: bool


def epilogue(activation: str, leak: float, dtype: torch.dtype) -> Epilogue:
    """Of an activation and its slope, for u in ``dtype``."""
    free = KINKS["identity"]
    if activation == "prelu":
        return Epilogue(activation, 0.0, 1.0, 0.0, free, free, False)
    c1, c2, _ = activation_moments(activation, leak)
    scale, shift = 1 / c1, -c2 / c1
    tells = activation in KINKS and not (activation == "leaky_relu" and leak <= 0)
    kinks = KINKS[activation] if tells else free
    bounds = _beyond(kinks[0], 1, scale, shift, dtype), _beyond(kinks[1], -1, scale, shift, dtype)
    smooth = activation in SMOOTH and dtype.itemsize > 2
    return Epilogue(activation, leak, scale, shift, kinks, bounds, tells or smooth)


cached_epilogue = functools.cache(epilogue)  # which torch.compile would warn about


def _beyond(kink: float, direction: int, scale: float, shift: float, dtype: torch.dtype) -> float:
    """The first value of ``dtype`` past y at a kink, whichever way a kernel rounds that."""
    if math.isinf(kink):
        return kink
    wide = DIGITS[torch.float64 if dtype == torch.float64 else torch.float32]
    at, ulp = _rounded(kink * scale + shift, wide)
    if kink:  # at 0 it is shift itself
        at += 4 * direction * ulp
    at, ulp = _rounded(at, DIGITS[dtype])
    return at + direction * ulp


def _rounded(x: float, digits: int) -> tuple[float, float]:
    """x to so many binary digits, and a unit of the last."""
    mantissa, exponent = math.frexp(x)
    ulp = math.ldexp(1.0, exponent - digits)
    return round(math.ldexp(mantissa, digits)) * ulp, ulp


class Product(NamedTuple):
    """x -> W x, a linear layer's or, with a stride, a convolution's."""

    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.stride:
            return F.linear(x, weight)
        convolution = (F.conv1d, F.conv2d, F.conv3d)[len(self.stride) - 1]
        return convolution(x, weight, None, self.stride, self.padding, self.dilation, self.groups)  # type: ignore

    def backward(self, du: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Any, Any]:
        """The gradients by x and by the weight."""
        if self.stride:
            args = None, self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups
            return torch.ops.aten.convolution_backward(du, x, weight, *args, [*wanted, False])[:2]
        dx = du @ weight if wanted[0] else None
        return dx, du.reshape(-1, du.shape[-1]).t() @ x.reshape(-1, x.shape[-1]) if wanted[1] else None

    def channels(self, u: Tensor) -> tuple[Tensor, bool]:
        """u as (N, C, S) or (N, S, C), and whether its channels lie last."""
        if not self.stride:
            return u.reshape(1, -1, u.shape[-1]), True
        last = lies_last(u)
        return view(u, last, True), last


def convolution(
    name: str, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Product, list[int]]:
    """The product, and what has to be added around input before: an uneven ``"same"``."""
    space = weight.dim() - 2
    given = {"stride": stride, "padding": padding, "dilation": dilation}
    sizes = {k: (v,) * space if isinstance(v, int) else v for k, v in given.items()}
    if padding in ("same", "valid"):
        sizes["padding"] = (0,) * space
    for argument, values in sizes.items():
        least = 0 if argument == "padding" else 1
        if not isinstance(values, tuple | list) or len(values) != space or not all(v >= least for v in values):
            rule = f"be one or {space} integers from {least}" + (", 'same' or 'valid'" if least == 0 else "")
            _checks.fail(name, argument, rule, repr(given[argument]))
    if groups < 1 or len(weight) % groups:
        _checks.fail(name, "groups", f"be positive and divide the {len(weight)} filters of weight", groups)
    pads: list[int] = []
    if padding == "same":
        if any(s != 1 for s in sizes["stride"]):
            _checks.fail(name, "padding", "be numbers where stride is not 1", "'same'")
        total = [d * (k - 1) for d, k in zip(sizes["dilation"], weight.shape[2:], strict=True)]
        sizes["padding"] = tuple(t // 2 for t in total)
        pads = [n for t in reversed(total) for n in (0, t % 2)]
    stride, padding, dilation = (tuple(v) for v in sizes.values())
    return Product(stride, padding, dilation, groups), pads
