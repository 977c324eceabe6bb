"""Norms of other libraries that add a residual first, and return the sum where they are asked for it."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy

from normkernels.conversion.become import forward_before
from normkernels.conversion.second import Second, alike, beside
from normkernels.conversion.tracing import defaults, parameters
from normkernels.conversion.trying import Calls, Candidate, first
from normkernels.conversion.twins import place
from normkernels.modules._leaf import leaf
from normkernels.modules.layer_norm import LayerNorm
from normkernels.modules.rms_norm import RMSNorm


class _AfterSum(Second):
    """Called with input, a residual, and whether the sum is wanted too: output in input's dtype, the sum in residual's.

    What else the forward takes, and calls in which that is not as it is by default, goes the way that it went before.
    """

    usual: dict[str, Any]  # of all but input, where they are not given

    def forward(self, *args: Any, **named: Any) -> Any:
        given = {**dict(zip(self.called, args, strict=False)), **named}
        whole = {**self.usual, **given}
        input, residual, both, *others = (whole.get(name) for name in self.called)
        if isinstance(input, Proxy) or isinstance(residual, Proxy):
            return leaf(self, input, residual, both, *others)
        plain = others == list(self.usual.values())[2:]
        if input is None or not plain or len(given) != len(args) + len(named) or len(whole) != len(self.called):
            return forward_before(self, *args, **named)
        if not alike(input, input if residual is None else residual, self.weight, beside(input.dtype)):
            return forward_before(self, *args, **named)
        if residual is None:
            y, s = super().forward(input), input  # type: ignore[misc]
        else:
            y, s = super().forward(input, residual)  # type: ignore[misc]
        return (y.to(input.dtype), s) if both else y.to(input.dtype)


class AfterSumRMSNorm(_AfterSum, RMSNorm):  # type: ignore[misc]
    __doc__ = _AfterSum.__doc__


class AfterSumLayerNorm(_AfterSum, LayerNorm):  # type: ignore[misc]
    __doc__ = _AfterSum.__doc__


def match(module: nn.Module, eps: float | None) -> nn.Module | None:
    """The module of ours that computes what this one does with and without a residual, and with the sum."""
    usual, names, weight = defaults(module), [p.name for p in parameters(module)], getattr(module, "weight", None)
    if list(usual) != names[1:] or list(usual.values())[:2] != [None, False]:
        return None
    if eps is None or not isinstance(weight, Tensor) or weight.dim() != 1:
        return None
    return first(module, _candidates(module, len(weight), eps, usual, tuple(names)))


def _candidates(
    module: nn.Module, n: int, eps: float, usual: dict[str, Any], called: tuple[str, ...]
) -> Iterator[Candidate]:
    more: dict[str, Any] = place(module) | {"bias": getattr(module, "bias", None) is not None}
    calls: Calls = tuple((count, named) for count in (1, 2) for named in ({}, {called[2]: True}))
    for kind, offset in product((AfterSumRMSNorm, AfterSumLayerNorm), (0.0, 1.0)):
        template = kind(n, eps, weight_offset=offset, **more)
        template.called, template.usual = called, usual
        yield Candidate(template, ((4, n), (2, 3, n)), calls)
