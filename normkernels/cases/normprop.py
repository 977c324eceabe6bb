"""Normalization Propagation: linear layers and convolutions, every activation, gains of either sign and zero."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels._activations import ACTIVATIONS
from normkernels.cases import Op, Sample, seeded
from normkernels.cases._channels import last
from normkernels.cases._rows import activate
from normkernels.functional import normprop_conv, normprop_linear
from normkernels.moments import activation_moments, prelu_moments


def normprop(
    input: Tensor, weight: Tensor, gain: Tensor, bias: Tensor | None = None, slope: Tensor | None = None, *,
    activation: str | None = "relu", backend: str | None = None, leak: float | None = None, **convolution: Any,
) -> Tensor:  # fmt: skip
    """Both functions under one name; slope is prelu's, leak that of leaky_relu."""
    given: dict[str, Any] = {"activation": activation, "slope": leak if slope is None else slope, "backend": backend}
    if weight.dim() == 2:
        return normprop_linear(input, weight, gain, bias, **given)
    return normprop_conv(input, weight, gain, bias, **given, **convolution)


def normprop_torch(
    input: Tensor, weight: Tensor, gain: Tensor, bias: Tensor | None = None, slope: Tensor | None = None, *,
    activation: str | None = "relu", leak: float | None = None, **convolution: Any,
) -> Tensor:  # fmt: skip
    """Equations 9, 11 and 12 as a user of torch writes them."""
    shape = (-1,) + (1,) * (weight.dim() - 1)
    norm = weight.flatten(1).norm(dim=1)
    scaled = ((gain / norm).view(shape) * weight).to(input.dtype)
    bias = None if bias is None else bias.to(input.dtype)
    if weight.dim() == 2:
        u, channels = F.linear(input, scaled, bias), (-1,)
    else:
        u, channels = getattr(F, f"conv{weight.dim() - 2}d")(input, scaled, bias, **convolution), shape[:-1]
    if slope is not None:
        a = slope.view(channels) if slope.numel() > 1 else slope
        c1, c2 = prelu_moments(a)
        return ((torch.where(u > 0, u, a * u) - c2) / c1).to(input.dtype)
    leak = 0.01 if leak is None else leak
    c1, c2, _ = activation_moments(activation, leak)
    return (activate(u, activation, leak) - c2) / c1


def _sample(id: str, x: Tensor, filters: int, kernel: tuple[int, ...] = (), slopes=0, bias=True, **call) -> Sample:
    g = seeded(f"normprop-{id}")

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    inputs = x.shape[1] // call.get("groups", 1) if kernel else x.shape[-1]
    tensors: dict[str, Tensor | None] = {
        "input": x,
        "weight": random(filters, inputs, *kernel),
        "gain": random(filters),
    }
    if filters > 2:
        tensors["gain"][1] = 0.0  # type: ignore[index]
    tensors["bias"] = random(filters) if bias else None
    tensors["slope"] = random(slopes) / 2 if slopes else None
    if slopes:
        call["activation"] = "prelu"
    sample = Sample(id, call, tensors, (), tuple(range(min(1, x.dim() - 1), x.dim())))
    y = normprop_torch(**sample.present(), **call)
    dy = torch.randn(y.shape, generator=g, dtype=torch.float64)
    return Sample(id, call, tensors, (last(dy) if "last" in id else dy,), sample.dims)


def _samples() -> list[Sample]:
    def x(*shape: int) -> Tensor:
        return torch.randn(shape, generator=seeded(f"normprop-{shape}"), dtype=torch.float64)

    image, pixels = x(2, 6, 5, 7), last(x(2, 6, 5, 7))
    return [
        *(_sample(f"linear-{a}", x(5, 33), 7, activation=a) for a in ACTIVATIONS),
        *(_sample(f"conv-{a}", image, 5, (3, 3), activation=a, padding=1) for a in ACTIVATIONS),
        _sample("linear-none", x(4, 9), 6, activation=None),
        _sample("linear-plain", x(4, 9), 6, bias=False),
        _sample("linear-silu-plain", x(4, 9), 6, bias=False, activation="silu"),
        _sample("linear-prelu", x(5, 33), 7, slopes=7),
        _sample("linear-prelu-one", x(5, 33), 7, slopes=1),
        _sample("linear-leaky_relu-0.3", x(5, 33), 7, activation="leaky_relu", leak=0.3),
        _sample("linear-leaky_relu-negative", x(5, 33), 7, activation="leaky_relu", leak=-0.5),
        _sample("linear-2x3x33", x(2, 3, 33), 300),
        _sample("linear-33", x(33), 4),
        _sample("linear-1x2", x(1, 2), 1),
        _sample("linear-many-rows", x(3000, 4), 3, activation="leaky_relu"),
        _sample("linear-strided", x(8, 66)[::2, ::2], 5),
        _sample("linear-0", x(0, 9), 6),
        _sample("conv1d", x(3, 4, 40), 6, (5,), padding=2, stride=2),
        _sample("conv2d-last", pixels, 5, (3, 3), padding=1),
        _sample("conv2d-last-gelu", pixels, 5, (3, 3), padding=1, activation="gelu"),
        _sample("conv2d-last-prelu", pixels, 5, (3, 3), slopes=5),
        _sample("conv2d-prelu", image, 5, (3, 3), slopes=5),
        _sample("conv2d-prelu-one", image, 5, (3, 3), slopes=1, bias=False),
        _sample("conv2d-1x1", x(2, 6, 16, 16), 33, (1, 1)),
        _sample("conv2d-groups", image, 4, (3, 3), groups=2, stride=(2, 1), padding=(1, 0)),
        _sample("conv2d-depthwise", image, 12, (3, 3), groups=6, dilation=2, padding=2),
        _sample("conv2d-large", x(2, 3, 40, 40), 4, (3, 3), activation="tanh"),
        _sample("conv3d", x(2, 2, 4, 5, 6), 3, (2, 3, 3), padding=1),
        _sample("conv1d-2", x(1, 2, 1), 1, (1,)),
        _sample("conv2d-0", x(0, 6, 5, 7), 5, (3, 3)),
    ]  # fmt: skip


def make(
    shape: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu", *, activation: str | None = "relu",
    parameter_dtype: torch.dtype | None = None, channels_last: bool = False,
) -> Sample:  # fmt: skip
    """shape: (M, N) for a linear layer N -> N; an image (N, C, *) for a 1x1 convolution C -> C."""
    C, space = shape[1], shape[2:]

    def random(*sizes: int, own: torch.dtype | None = None) -> Tensor:
        return torch.randn(sizes, dtype=own or dtype, device=device)

    wide = parameter_dtype or dtype
    image = last(random(*shape)) if channels_last else random(*shape)
    tensors = {
        "input": image, "weight": random(C, C, *[1] * len(space), own=wide), "gain": random(C, own=wide),
        "bias": random(C, own=wide),
    }  # fmt: skip
    dy = last(random(*shape)) if channels_last else random(*shape)
    call = {"activation": activation}
    return Sample("x".join(map(str, shape)), call, tensors, (dy,), tuple(range(1, 2 + len(space))), prod(shape) > 1e5)


OP = Op(
    "normprop", normprop, normprop_torch, _samples(), make, ("weight", "gain", "bias", "slope"), added="",
    kind="normprop", rounded=True,
)  # fmt: skip
