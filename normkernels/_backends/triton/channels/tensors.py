"""Channels: what the kernels are given, as tuples."""

from typing import NamedTuple

from torch import Tensor


class Forward(NamedTuple):
    """x, skip, y: (N, C, S) or LAST; weight, bias: (C,); mean, var: (B, G); scale: in place of a variance."""

    x: Tensor
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    y: Tensor | None
    mean: Tensor
    var: Tensor | None
    scale: Tensor | None = None


class Backward(NamedTuple):
    """As in the schema; scale: in place of a variance; partials: (B or parts, C), sums of du xhat and of du."""

    dy: Tensor
    x: Tensor
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    var: Tensor | None
    scale: Tensor | None = None
    partial_w: Tensor | None = None
    partial_b: Tensor | None = None
    mean_gx: Tensor | None = None
    mean_g: Tensor | None = None
    dx: Tensor | None = None
    dskip: Tensor | None = None


def tensors(a) -> Backward:
    """What the backward ops of the family read."""
    return Backward(a.dy, a.x, a.skip, a.weight, a.bias, a.mean, a.var)
