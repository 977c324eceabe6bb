"""Norms of other libraries that are called with a gate: (norm(x) w + b) activation(gate)."""

import contextlib
import functools
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from normkernels._activations import activation
from normkernels.conversion.become import forward_before
from normkernels.conversion.second import Second, alike
from normkernels.conversion.tracing import parameters
from normkernels.conversion.trying import Calls, Candidate, draw, first, randomized
from normkernels.conversion.twins import place
from normkernels.modules._leaf import leaf
from normkernels.modules.layer_norm import LayerNorm
from normkernels.modules.rms_norm import RMSNorm

TWO: Calls = ((2, {}),)
GATES = ("silu", "sigmoid", "gelu", "gelu_tanh", "relu", None)
OTHER = "its forward takes more than an input, and what it computes is no norm of ours with a gate or a residual"
BEFORE = "its gate comes before the norm, ours after it"
PARTS = "it norms parts of a row, ours whole rows"


class _Gated(Second):
    """Called with input and gate, by the names that they had; every other call goes the way that it went before."""

    def forward(self, *args: Any, **named: Any) -> Any:
        given = {**dict(zip(self.called, args, strict=False)), **named}
        input, gate = (given.get(name) for name in self.called)
        if isinstance(input, Proxy) or isinstance(gate, Proxy):
            return leaf(self, input, gate)
        two = len(args) + len(named) == 2
        if two and input is not None and gate is not None and alike(input, gate, self.weight, (input.dtype,)):
            return super().forward(input, gate=gate)  # type: ignore[misc]
        return forward_before(self, *args, **named)


class GatedRMSNorm(_Gated, RMSNorm):  # type: ignore[misc]
    __doc__ = _Gated.__doc__


class GatedLayerNorm(_Gated, LayerNorm):  # type: ignore[misc]
    __doc__ = _Gated.__doc__


def match(module: nn.Module, eps: float | None) -> nn.Module | str:
    """The module of ours that computes what this one does when it is called with two tensors, or why there is none."""
    names = [p.name for p in parameters(module) if p.kind is p.POSITIONAL_OR_KEYWORD][:2]
    weight = getattr(module, "weight", None)
    if len(names) < 2 or eps is None or not isinstance(weight, Tensor) or weight.dim() != 1:
        return OTHER
    n = len(weight)
    return first(module, _candidates(module, n, eps, (names[0], names[1]))) or _why(module, n)


def _candidates(module: nn.Module, n: int, eps: float, called: tuple[str, str]) -> Iterator[Candidate]:
    more: dict[str, Any] = place(module) | {"bias": getattr(module, "bias", None) is not None}
    for kind, offset, name in product((GatedRMSNorm, GatedLayerNorm), (0.0, 1.0), GATES):
        template = kind(n, eps, activation=name, weight_offset=offset, **more)
        template.called = called
        yield Candidate(template, ((4, n), (2, 3, n)), TWO)


@torch.no_grad()
def _why(module: nn.Module, n: int) -> str:
    """What can be told of a norm with a second argument by trying it out."""
    copied, generator = randomized(module)
    norm: Any = functools.partial(type(copied).forward, copied)
    x, gate, last = *draw(2, (2, 3, n), generator), torch.arange(n, device=generator.device) == n - 1
    try:
        y = norm(x, gate)
        parts = torch.equal(norm(torch.where(last, 1e3, x), gate)[..., 0], y[..., 0])
    except Exception as error:  # it wants something else, or cannot run on this device
        return f"called with two tensors it raises {type(error).__name__}"
    reasons = [PARTS] if parts else []
    with contextlib.suppress(Exception):  # it may need the gate
        if any(torch.allclose(norm(x * activation(name or "identity", gate, 0.01)), y, 1e-4, 1e-5) for name in GATES):
            reasons.append(BEFORE)
    return "; ".join(reasons) or OTHER
