"""Recurrent: what the kernels are given, as tuples; spread: rstd of a layer norm, var of a batch norm."""

from typing import NamedTuple

from torch import Tensor


class RNNForward(NamedTuple):
    """As in the schema."""

    input: Tensor
    a: Tensor
    weight: Tensor | None
    bias: Tensor | None
    h: Tensor
    y: Tensor
    mean: Tensor
    spread: Tensor


class RNNBackward(NamedTuple):
    """As in the schema; partials: (lines, N)."""

    dy: Tensor
    y: Tensor
    a: Tensor
    mean: Tensor
    spread: Tensor
    weight: Tensor | None
    dh: Tensor
    dinput: Tensor
    da: Tensor | None
    partial_w: Tensor | None
    partial_b: Tensor | None


class GRUForward(NamedTuple):
    """As in the schema."""

    input: Tensor
    a: Tensor
    weight: Tensor | None
    bias: Tensor | None
    h: Tensor
    y: Tensor
    mean: Tensor
    rstd: Tensor
    gates: Tensor


class GRUBackward(NamedTuple):
    """As in the schema; partials: (lines, 3 N)."""

    dy: Tensor
    gates: Tensor
    previous: Tensor
    a: Tensor
    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None
    dh: Tensor
    dinput: Tensor
    da: Tensor | None
    partial_w: Tensor | None
    partial_b: Tensor | None


class LSTMForward(NamedTuple):
    """As in the schema."""

    input: Tensor
    a: Tensor
    weight: Tensor | None
    bias: Tensor | None
    cell_weight: Tensor | None
    cell_bias: Tensor | None
    h: Tensor
    c: Tensor
    y: Tensor
    mean: Tensor
    spread: Tensor
    gates: Tensor
    cells: Tensor
    raw_cells: Tensor | None
    cell_mean: Tensor | None
    cell_spread: Tensor | None


class LSTMBackward(NamedTuple):
    """As in the schema; partials: (lines, 4 N) and (lines, N)."""

    dy: Tensor
    gates: Tensor
    cells: Tensor
    raw_cells: Tensor | None
    cell_mean: Tensor | None
    cell_spread: Tensor | None
    previous_cells: Tensor
    a: Tensor
    mean: Tensor
    spread: Tensor
    weight: Tensor | None
    cell_weight: Tensor | None
    cell_bias: Tensor | None
    dh: Tensor
    dc: Tensor
    dinput: Tensor
    da: Tensor | None
    partial_w: Tensor | None
    partial_b: Tensor | None
    partial_cell_w: Tensor | None
    partial_cell_b: Tensor | None


def forward_tensors(a, spread: Tensor, cell_spread: Tensor | None) -> LSTMForward:
    """Those of a forward op."""
    return LSTMForward(
        a.input, a.a, a.weight, a.bias, a.cell_weight, a.cell_bias, a.h, a.c, a.y, a.mean, spread, a.gates, a.cells,
        a.raw_cells, a.cell_mean, cell_spread,
    )  # fmt: skip


def backward_tensors(a, spread: Tensor, cell_spread: Tensor | None, partials: list[Tensor | None]) -> LSTMBackward:
    """Those of a backward op."""
    return LSTMBackward(
        a.dy, a.gates, a.cells, a.raw_cells, a.cell_mean, cell_spread, a.previous_cells, a.a, a.mean, spread, a.weight,
        a.cell_weight, a.cell_bias, a.dh, a.dc, a.dinput, a.da, *partials,
    )  # fmt: skip
