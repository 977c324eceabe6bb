"""Norms of rows in ordinary ops, written so that Inductor makes fast code of them on the CPU.

Without gradients it computes what it has not stored anew for each vector of a row, a division and a root too. A view by
strides makes it store them, for all rows at once, which then are read again: that pays where they stay in a cache.
Where gradients are taken torch's functions are the faster ones: their backward has a form of its own.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

PART = 8
LEAST = 16  # values in a part: Inductor unrolls a sum of few, and stores what so many reads make


def small(x: Tensor, most: int = 1 << 17) -> bool:
    """Whether it stays in a cache. A symbolic size proves nothing, and gets no guard that not every batch passes."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # which imports sympy

    return statically_known_true(x.numel() <= most)


def part(n: int) -> int:
    """How many of n values, the first, have a mean near enough to that of all to be taken off before their squares.

    That of an eighth is within sqrt(8) standard deviations of the mean, whatever the values: squares of what is left
    lose no whole digit.
    """
    return max(-(-n // PART), LEAST)


def layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    """torch's, and exact for rows far from 0, whose mean torch rounds.

    What is taken off first is a constant, which changes neither y nor a gradient: the mean of the row's first part, or
    of all of it where it lies in a cache. Inductor writes y over an x that is read in one way only.
    A variance that rounding leaves below 0 is 0.
    """
    dims = tuple(range(-len(shape), 0))
    whole = small(x) and not torch.is_grad_enabled()
    first = x.detach() if whole else x.detach()[..., : part(shape[-1])]
    near = x - _beside(first.sum(dims) * (1 / max(prod(first.shape[-len(shape) :]), 1)), dims)
    if torch.is_grad_enabled():
        return F.layer_norm(near, tuple(shape), weight, bias, eps)
    share = 1 / max(prod(shape), 1)  # Inductor divides by N for every few values again
    mean = near.sum(dims) * share
    var = (near * near).sum(dims) * share - mean * mean
    rstd = _stored((var.clamp_min(0) + eps).rsqrt(), x)
    return _affine((near - _beside(mean, dims)) * _beside(rstd, dims), weight, bias)


def rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    """torch's, with a bias."""
    if torch.is_grad_enabled() or not small(x):
        return _affine(F.rms_norm(x, tuple(shape), weight, eps), None, bias)
    dims = tuple(range(-len(shape), 0))
    square = (x * x).sum(dims) * (1 / max(prod(shape), 1))
    return _affine(x * _beside(_stored((square + eps).rsqrt(), x), dims), weight, bias)


def _affine(u: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    u = u if weight is None else u * weight
    return u if bias is None else u + bias


def _beside(statistic: Tensor, dims: Sequence[int]) -> Tensor:
    """Of each row, as it is taken beside the row's values: with dims of size 1 a buffer would be viewed anew."""
    return statistic[(..., *(None for _ in dims))]


def _stored(t: Tensor, x: Tensor) -> Tensor:
    return t.as_strided(t.shape, t.stride()) if small(x) else t
