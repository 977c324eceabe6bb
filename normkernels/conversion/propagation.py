"""Normalization Propagation in the place of batch norms: a product, its norm and what follows become one layer.

Where running statistics exist, gain and bias start so that the pre-activation is that of the batch norm in ``eval()``:

    w (W x + b - m) / s + c  =  gain W x' / |W| + bias,    x = c1 x' + c2 what arrived before,  x' what arrives now
"""

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normkernels._chains import Link, chains, passes
from normkernels._folding import Affine, Pending
from normkernels.conversion import activations
from normkernels.conversion.become import become, go_back
from normkernels.conversion.peers import counterpart
from normkernels.conversion.report import Change, Note, Report, label
from normkernels.conversion.twins import is_norm, place
from normkernels.modules.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normkernels.modules.normprop import NormPropConv1d, NormPropConv2d, NormPropConv3d, NormPropLinear
from normkernels.moments import activation_moments

MEMBER = "normprop"
ELSEWHERE = "NormProp takes a product, its norm and what follows in one torch.nn.Sequential, each used and heard once"
KINDS: dict[type, Any] = {
    nn.Linear: (NormPropLinear, BatchNorm1d), nn.Conv1d: (NormPropConv1d, BatchNorm1d),
    nn.Conv2d: (NormPropConv2d, BatchNorm2d), nn.Conv3d: (NormPropConv3d, BatchNorm3d),
}  # fmt: skip
NUMBERS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_KEPT = "_propagated_from"  # on a product: a Kept


class Kept(NamedTuple):
    """What a layer was made of: the norm, the product's own bias, and the mean and deviation that x had before."""

    norm: nn.Module
    bias: nn.Parameter | None
    arriving: tuple[float, float]
    jacobian_factor: float


class Place(NamedTuple):
    """Three neighbours, and the activation that was found there."""

    product: Any
    norm: Any
    after: nn.Module | None
    activation: tuple[str | None, float]
    moments: Any

    def pending(self) -> Pending:
        c1, c2 = (torch.tensor([float(t)]) for t in self.moments[:2])
        return Pending(1 / c1, -c2 / c1, self.product.weight.dim() - 2)


def propagate(model: nn.Module, report: Report) -> None:
    names = {id(m): name for name, m in model.named_modules()}
    uses = Counter(id(c) for m in model.modules() for c in [*m._modules.values(), *m._parameters.values()])
    for chain in chains(model):
        if any(activations.has_hooks(link.parent) for link in chain):
            continue
        last = None  # the layer whose normalised output arrives here
        for i, link in enumerate(chain):
            found = _place(chain[i : i + 3], uses)
            if found is not None:
                _close(last, names, report, raw=False)
                _merge(found, (1.0, 0.0) if last is None else last.moments[:2], names, report)
                last = found
            elif last is not None and link.module not in last[:3] and not passes(link.module, last.pending()):
                _close(last, names, report, raw=True)
                last = None
        _close(last, names, report, raw=True)


def _place(links: list[Link], uses: Counter[int]) -> Place | None:
    """What may become one layer here; None if something else needs what lies between, or holds one of them too."""
    if len(links) < 2 or type(links[0].module) not in KINDS or not is_norm(links[1].module):
        return None
    product: Any
    product, norm = links[0].module, links[1].module
    ours: Any = counterpart(norm)
    held: list[Any] = [product, norm, *norm._parameters.values()]
    if not isinstance(ours, KINDS[type(product)][1]) or ours.num_features != len(product.weight):
        return None
    bad = ours.frozen_statistics or any(activations.has_hooks(m) or parametrize.is_parametrized(m) for m in held[:2])
    if bad or any(norm._parameters.get(k) is None for k in ("weight", "bias")) or any(uses[id(h)] > 1 for h in held):
        return None
    after, own = (links[2].module if len(links) > 2 else None), (ours.activation, ours.slope)
    following = None if after is None or own[0] or uses[id(after)] > 1 else activations.of_module(after)
    name, slope = following or own
    found = activation_moments(name or "identity", slope if name == "leaky_relu" else None)
    return Place(product, norm, after if following else None, (name, slope), found)


@torch.no_grad()
def _merge(found: Place, arriving: tuple[float, float], names: dict[int, str], report: Report) -> None:
    """The product becomes the layer, with the norm's own parameters as gain and bias."""
    product, norm, after, (name, slope), moments = found
    before, gain, bias = label(product), norm._parameters.pop("weight"), norm._parameters.pop("bias")
    kept = Kept(norm, product._parameters.get("bias"), arriving, moments.jacobian_factor)
    k, shift = _affine(product.weight, kept)
    bias.copy_(bias.double() + gain.double() * shift)
    gain.copy_(gain.double() * k)
    slopes = {"slope": slope} if name == "leaky_relu" else {}
    become(product, _template(product, activation=name, **slopes))
    product._parameters.update(gain=gain, bias=bias)
    vars(product)[_KEPT] = kept
    if after is not None:
        become(after, nn.Identity())
    report.changed.append(Change(names[id(product)], before, label(product)))
    report.fused.append(Note(names[id(product)], label(product), f"with {name}" if name else "with its norm alone"))


def _template(product: Any, **more: Any) -> nn.Module:
    kind, made = KINDS[type(product)][0], place(product) | more
    if isinstance(product, nn.Linear):
        return kind(product.in_features, product.out_features, **made)
    return kind(**{k: getattr(product, k) for k in NUMBERS}, padding_mode=product.padding_mode, **made)


def _affine(weight: Tensor, kept: Kept) -> tuple[Tensor, Tensor]:
    """(k, shift): gain = w k and bias = c + w shift, of the norm's own w and c."""
    filters = weight.double().flatten(1)
    mean, var, seen = (getattr(kept.norm, k, None) for k in ("running_mean", "running_var", "num_batches_tracked"))
    if mean is None or var is None or seen == 0:
        return filters.new_full((len(filters),), 1 / kept.jacobian_factor), filters.new_zeros(len(filters))
    c1, c2 = kept.arriving
    rstd = (var.double() + vars(kept.norm)["eps"]).rsqrt()
    own = 0 if kept.bias is None else kept.bias.double()
    return filters.norm(dim=1) * rstd * c1, (own - mean.double() + c2 * filters.sum(1)) * rstd


def _close(last: Place | None, names: dict[int, str], report: Report, raw: bool) -> None:
    """What stands where the norm was: nothing, or the way back to the activation as it was, for who expects that."""
    if last is not None:
        before = label(last.norm)
        c1, c2, _ = last.moments
        raw = raw and last.activation[0] is not None
        constants = (torch.tensor(c, **place(last.product)) for c in (c1, c2))
        become(last.norm, Affine(*constants) if raw else nn.Identity())
        report.changed.append(Change(names[id(last.norm)], before, label(last.norm)))


@torch.no_grad()
def undo(model: nn.Module, report: Report) -> None:
    """The three modules as they were; in ``eval()`` the norm's weight and bias give the pre-activation there is now."""
    for name, product in list(model.named_modules()):
        kept: Kept | None = vars(product).pop(_KEPT, None)
        if kept is None:
            continue
        before, norm, parameters = label(product), kept.norm, vars(product)["_parameters"]
        gain, bias = parameters.pop("gain"), parameters.pop("bias")
        norm._parameters.update(weight=gain, bias=bias)
        for module in (product, norm):
            go_back(module)
        for k, t in norm._buffers.items():  # which no cast of the model has reached
            if t is not None and t.is_floating_point():
                norm._buffers[k] = t.to(gain)  # type: ignore[arg-type]
        if kept.bias is not None:
            kept.bias.data = kept.bias.data.to(product.weight)  # type: ignore[arg-type]
        product._parameters["bias"] = kept.bias
        k, shift = _affine(product.weight, kept)  # type: ignore[arg-type]
        gain.copy_(gain.double() / torch.where(k == 0, 1, k))
        bias.copy_(bias.double() - gain.double() * shift)
        report.changed.append(Change(name, before, label(product)))
