"""Activations and their derivatives, as torch.nn.functional defines them. The names are the package's one set."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal[  # for type checkers, and for editors that complete it
    "leaky_relu", "identity", "relu", "relu6", "tanh", "sigmoid", "elu", "selu", "gelu", "gelu_tanh", "silu",
    "softplus", "hardtanh", "hardsigmoid", "hardswish", "mish", "softsign",
]  # fmt: skip
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return ((u > low) & (u < high)).to(u.dtype)


def _d_gelu(u: Tensor) -> Tensor:
    density = torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(u * math.sqrt(0.5))) + u * density


def _d_gelu_tanh(u: Tensor) -> Tensor:
    k, a = math.sqrt(2 / math.pi), 0.044715
    t = torch.tanh(k * (u + a * u**3))
    return 0.5 * (1 + t) + 0.5 * u * (1 - t * t) * k * (1 + 3 * a * u * u)


def _d_mish(u: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(u))
    return t + u * (1 - t * t) * torch.sigmoid(u)


def _d_silu(u: Tensor) -> Tensor:
    s = torch.sigmoid(u)
    return s * (1 + u * (1 - s))


def _d_elu(u: Tensor) -> Tensor:
    return torch.where(u > 0, torch.ones_like(u), torch.exp(torch.clamp(u, max=0)))


def _d_selu(u: Tensor) -> Tensor:
    return SELU_SCALE * torch.where(u > 0, torch.ones_like(u), SELU_ALPHA * torch.exp(torch.clamp(u, max=0)))


def _d_hardswish(u: Tensor) -> Tensor:
    return torch.where(u > 3, torch.ones_like(u), (u / 3 + 0.5) * (u >= -3))


# name -> (f(u), f'(u)); leaky_relu alone takes a slope, so it is added by `activation` and `derivative` below
_TABLE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "identity": (lambda u: u, torch.ones_like),
    "relu": (torch.relu, lambda u: (u > 0).to(u.dtype)),
    "relu6": (F.relu6, lambda u: _between(u, 0, 6)),
    "tanh": (torch.tanh, lambda u: 1 - torch.tanh(u).square()),
    "sigmoid": (torch.sigmoid, lambda u: torch.sigmoid(u) * torch.sigmoid(-u)),
    "elu": (F.elu, _d_elu),
    "selu": (F.selu, _d_selu),
    "gelu": (F.gelu, _d_gelu),
    "gelu_tanh": (lambda u: F.gelu(u, approximate="tanh"), _d_gelu_tanh),
    "silu": (F.silu, _d_silu),
    "softplus": (F.softplus, lambda u: torch.where(u > 20, torch.ones_like(u), torch.sigmoid(u))),
    "hardtanh": (F.hardtanh, lambda u: _between(u, -1, 1)),
    # F.hardsigmoid has no second derivative, and rounds 1 / 6 to float32 in the first
    "hardsigmoid": (lambda u: F.relu6(u + 3) / 6, lambda u: _between(u, -3, 3) / 6),
    "hardswish": (F.hardswish, _d_hardswish),
    "mish": (F.mish, _d_mish),
    "softsign": (F.softsign, lambda u: (1 + u.abs()).square().reciprocal()),
}
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
GATED = "gated_"  # before the name of an activation that is given a gate and multiplies u, in ops over channels


def activation(name: str, u: Tensor, slope: float) -> Tensor:
    """f(u). ``slope`` is leaky_relu's."""
    return F.leaky_relu(u, slope) if name == "leaky_relu" else _TABLE[name][0](u)


def of_gate(name: str) -> tuple[bool, str]:
    """Whether an op's activation is that of a gate, and its name."""
    return name.startswith(GATED), name.removeprefix(GATED)


def derivative(name: str, u: Tensor, slope: float) -> Tensor:
    """f'(u), with torch's choice at the kinks."""
    if name == "leaky_relu":
        return torch.where(u > 0, torch.ones_like(u), slope)
    return _TABLE[name][1](u)
