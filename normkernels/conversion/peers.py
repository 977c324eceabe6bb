"""Norms of other libraries, told by what they hold and proved by what they compute; no library is imported."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.parameter import is_lazy

from normkernels.conversion import activations, gates, residuals, twins
from normkernels.conversion.become import base
from normkernels.conversion.tracing import parameters
from normkernels.conversion.trying import Candidate, first
from normkernels.conversion.twins import CHANNELS, place
from normkernels.modules._one_call import one_call
from normkernels.modules.batch_norm import BatchNorm2d
from normkernels.modules.group_norm import GroupNorm
from normkernels.modules.layer_norm import LayerNorm
from normkernels.modules.layer_norm_2d import LayerNorm2d
from normkernels.modules.rms_norm import RMSNorm

EPS = ("eps", "variance_epsilon", "epsilon", "norm_eps")


def _wide(norm: Any, input: Tensor) -> tuple[Any, Tensor]:
    """Output in the wider dtype of input and weight, as where torch multiplies the two; Llama's RMS norm, for one."""
    if isinstance(input, Proxy) or norm.weight is None or norm.weight.dtype == input.dtype:
        return norm, input
    dtype = torch.promote_types(input.dtype, norm.weight.dtype)
    return _beside(norm, dtype), input.to(dtype)


def _as_input(norm: Any, input: Tensor) -> tuple[Any, Tensor]:
    """Output in input's dtype, whatever those of weight and bias, as where a norm casts all to float32: diffusers'."""
    if isinstance(input, Proxy) or norm.weight is None or norm.weight.dtype == input.dtype:
        return norm, input
    return _beside(norm, input.dtype), input


def _beside(module: Any, dtype: torch.dtype) -> Any:
    """The module, or one that stands in for it with tensors that an op takes beside input of this dtype."""
    wanted = dtype if dtype.itemsize > 2 else torch.float32
    found = {}
    for kind in ("_parameters", "_buffers"):
        own = getattr(module, kind)
        cast = {k: t.to(wanted) for k, t in own.items() if t is not None and t.dtype not in (dtype, wanted)}
        cast = {k: t for k, t in cast.items() if own[k].is_floating_point()}
        if cast:
            found[kind] = {**own, **cast}
    if not found:
        return module
    other: Any = object.__new__(type(module))
    vars(other).update({**vars(module), **found})
    return other


# Each calls the forward that it means by its name: one found by super() would be guarded anew for every module.


class WideRMSNorm(RMSNorm):
    __doc__ = _wide.__doc__

    @one_call
    def forward(self, input: Tensor, *added: Any, **more: Any) -> Any:
        return RMSNorm.forward(*_wide(self, input), *added, **more)


class NarrowRMSNorm(WideRMSNorm):
    """In the wider dtype of input and weight, and output in weight's where that has 16 bits: T5's, diffusers'."""

    @one_call
    def forward(self, input: Tensor, *added: Any, **more: Any) -> Any:
        found = RMSNorm.forward(*_wide(self, input), *added, **more)
        if isinstance(input, Proxy) or self.weight.dtype.itemsize > 2 or self.weight.dtype == input.dtype:
            return found
        return found.to(self.weight.dtype) if isinstance(found, Tensor) else (found[0].to(self.weight.dtype), found[1])


class WideLayerNorm(LayerNorm):
    __doc__ = _wide.__doc__

    @one_call
    def forward(self, input: Tensor, *added: Any, **more: Any) -> Any:
        return LayerNorm.forward(*_wide(self, input), *added, **more)


class WideLayerNorm2d(LayerNorm2d):
    __doc__ = _wide.__doc__

    @one_call
    def forward(self, input: Tensor, *added: Any, **more: Any) -> Any:
        return LayerNorm2d.forward(*_wide(self, input), *added, **more)


class WideBatchNorm2d(BatchNorm2d):
    __doc__ = _wide.__doc__

    @one_call
    def forward(self, input: Tensor, *added: Any, **more: Any) -> Any:
        return BatchNorm2d.forward(*_wide(self, input), *added, **more)


class AsInputLayerNorm(LayerNorm):
    __doc__ = _as_input.__doc__

    @one_call
    def forward(self, input: Tensor, *added: Any, **more: Any) -> Any:
        return LayerNorm.forward(*_as_input(self, input), *added, **more)


class AsInputLayerNorm2d(LayerNorm2d):
    __doc__ = _as_input.__doc__

    @one_call
    def forward(self, input: Tensor, *added: Any, **more: Any) -> Any:
        return LayerNorm2d.forward(*_as_input(self, input), *added, **more)


def counterpart(module: nn.Module) -> nn.Module | str:
    """What a norm becomes, as a template, itself where it is ours; or why it stays."""
    kind = base(module)
    if twins.is_ours(module):
        return module
    if any(is_lazy(t) for t in [*module._parameters.values(), *module._buffers.values()]):
        return "it does not know its size before its first call"
    if isinstance(module, nn.SyncBatchNorm):
        return "its statistics span processes"
    return twins.template(module, twins.TWINS[kind]) if kind in twins.TWINS else match(module)


def match(module: nn.Module) -> nn.Module | str:
    """The module of ours that computes what this one does, as a template; or why there is none."""
    if "forward" in vars(module):
        return "its forward was replaced"
    tensors = [*module.parameters(False), *module.buffers(False)]
    if any(t.is_meta for t in tensors):
        return "a meta tensor cannot be tried out"
    if _named(module) > 1:  # a residual, a gate, a condition
        return residuals.match(module, _eps(module)) or gates.match(module, _eps(module))
    return first(module, _candidates(module)) or "none of ours computes the same"


def _named(module: nn.Module) -> int:
    """How many arguments of its forward have names."""
    return sum(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters(module))


def _eps(module: nn.Module) -> float | None:
    return next((v for v in (getattr(module, name, None) for name in EPS) if isinstance(v, float)), None)


def _candidates(module: Any) -> Iterator[Candidate]:
    weight, bias, mean = (getattr(module, name, None) for name in ("weight", "bias", "running_mean"))
    eps, known = _eps(module), activations.of_children(module)
    if eps is None and isinstance(mean, Tensor):
        eps = 1e-5  # written into its forward, perhaps: DETR's
    if eps is None or known is None or not isinstance(weight, Tensor) or weight.dim() != 1:
        return
    n, more = len(weight), place(module) | {"activation": known[0], "slope": known[1]}
    if isinstance(mean, Tensor):
        kind = next((ours for theirs, ours in CHANNELS.items() if isinstance(module, theirs)), BatchNorm2d)
        new = kind(n, eps, getattr(module, "momentum", 0.1), **more)
        frozen = not isinstance(weight, nn.Parameter)
        for norm in (new, WideBatchNorm2d(n, eps, **more)) if frozen else (new,):
            norm.frozen_statistics = frozen
            yield Candidate(norm, ((4, n, 2, 3, 1)[: int(kind.__name__[-2]) + 2],))
    elif isinstance(groups := getattr(module, "num_groups", None), int):
        yield Candidate(GroupNorm(groups, n, eps, **more), ((2, n, 3), (2, n, 2, 3)))
    else:
        rows, with_bias = ((4, n), (2, 3, n)), bias is not None
        for kind, offset in product((RMSNorm, WideRMSNorm, NarrowRMSNorm), (0.0, 1.0)):
            yield Candidate(kind(n, eps, bias=with_bias, weight_offset=offset, **more), rows)
        for kind in (LayerNorm, AsInputLayerNorm, WideLayerNorm):
            yield Candidate(kind(n, eps, bias=with_bias, **more), rows)
        for kind, format in product(
            (LayerNorm2d, AsInputLayerNorm2d, WideLayerNorm2d), (torch.preserve_format, torch.channels_last)
        ):
            yield Candidate(kind(n, eps, bias=with_bias, memory_format=format, **more), ((2, n, 2, 3),))
