"""Channels: what the kernels are given, as tuples."""

from typing import NamedTuple

from torch import Tensor

from normkernels._activations import of_gate


class Forward(NamedTuple):
    """x, skip, y, gate: (N, C, S) or LAST; weight, bias: (C,); mean, var: (B, G); scale: in place of a variance.

    With a gate, which nobody has beside a skip, the activation is the gate's, and multiplies.
    """

    x: Tensor
    skip: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    y: Tensor | None
    mean: Tensor
    var: Tensor | None
    scale: Tensor | None = None
    gate: Tensor | None = None


class Backward(NamedTuple):
    """As in the schema; scale: in place of a variance; partials: (B or parts, C), sums of du xhat and of du.

    dskip: the gradient of skip, or of the gate.
    """

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
    gate: Tensor | None = None


def act(a) -> str:
    """The name of an op's activation, of u or of a gate."""
    return of_gate(a.activation)[1]


def beside(a) -> tuple[Tensor | None, Tensor | None]:
    """Skip and the gate of an op, one of which it is given as skip."""
    gated, _ = of_gate(a.activation)
    return (None, a.skip) if gated else (a.skip, None)


def filled(a) -> Forward:
    """What the forward ops of the family read and write."""
    skip, gate = beside(a)
    return Forward(a.x, skip, a.weight, a.bias, a.y, a.mean, a.var, gate=gate)


def tensors(a) -> Backward:
    """What the backward ops of the family read."""
    skip, gate = beside(a)
    return Backward(a.dy, a.x, skip, a.weight, a.bias, a.mean, a.var, gate=gate)
