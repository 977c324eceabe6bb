"""Folding NormProp layers into plain ones for inference."""

import torch
from torch import nn

from normkernels import _folding
from normkernels._chains import LAYERS, Link, chains, passes
from normkernels._checks import fail
from normkernels.modules._normprop import NormProp
from normkernels.modules.weight_norm import Layer


@torch.no_grad()
def fold_(model: Layer) -> Layer:
    r"""Replace every NormProp layer of ``model`` by a plain layer and activation that together compute the same.

    The norm and gain go into the weight. The constants of :math:`(f(u) - c_2) / c_1` go into the weight and bias of the
    next linear layer or convolution of the same ``torch.nn.Sequential`` (nested ones count as one), past pooling,
    flattening and dropout; where that one pads with zeros, the raw activation is padded with :math:`c_2` instead. Where
    that would be wrong (average pooling that counts padded zeros, a slope for each channel before padding, something
    else in between, or nothing after it) they stay, as a module that scales and shifts.

    Args:
        model: it is changed in place; its parameters are new ones, so fold after training.

    Returns:
        model.

    Raises:
        ValueError: a layer occurs twice in the model, which is then as it was.

    Example:
        >>> model = torch.nn.Sequential(nk.NormPropLinear(4, 8), torch.nn.Linear(8, 2))
        >>> [type(layer).__name__ for layer in nk.fold_(model)[0]]
        ['Linear', 'ReLU']

    Source: Arpit et al. 2016, arXiv:1603.01431, equations 9 to 12; the folding is ours.
    """
    layers = [m for _, m in model.named_modules(remove_duplicate=False) if isinstance(m, NormProp | LAYERS)]
    if len(layers) > len(set(layers)):
        fail("fold_", "model", "have each layer once", "one that occurs twice")
    for chain in chains(model):
        _fold_chain(chain)
    return model


def _fold_chain(chain: list[Link]) -> None:
    behind: list[nn.Module] = []  # the layer before, as it is now
    pending, where = None, None  # what has to follow it, and its place
    for link in chain:
        module, ours = link.module, isinstance(link.module, NormProp)
        if ours or isinstance(module, LAYERS):
            layer = _folding.plain(module) if ours else module
            taken = None if pending is None else _folding.take(layer, pending)
            if taken is None and pending is not None and where is not None:
                where.becomes(*behind, *pending.affine())
            pending, where, behind = None, link, taken or [layer]
            if ours:
                function, pending = _folding.activation(module)
                behind += function
            link.becomes(*behind)
        elif pending is not None and where is not None and not passes(module, pending):
            where.becomes(*behind, *pending.affine())
            pending = None
    if pending is not None and where is not None:
        where.becomes(*behind, *pending.affine())
