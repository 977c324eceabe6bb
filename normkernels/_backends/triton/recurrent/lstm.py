"""Recurrent: what the LSTMs share on a loaded tile, whichever the axis of their norms: gates, cell, and its own norm.

Without a norm the statistics of the cell are None. RAW: the cells where it is the normalised ones that are handed on.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from normkernels._backends.triton.base.activations import sigmoid, tanh
from normkernels._backends.triton.recurrent.norm import (
    add_groups,
    add_squares,
    add_sums,
    means_of,
    no_sums,
    through_norm,
)
from normkernels._backends.triton.recurrent.tiles import (
    add_term,
    at,
    load,
    normed,
    standardised,
    store,
    summed,
    times_parameter,
)


class Gates(NamedTuple):
    """What the cell of a step comes from."""

    input: tl.tensor
    a: tl.tensor
    weight: tl.tensor | None
    bias: tl.tensor | None
    c: tl.tensor


class Given(NamedTuple):
    """What the gradients of a step come from."""

    dy: tl.tensor
    dh: tl.tensor
    dc: tl.tensor
    gates: tl.tensor
    cells: tl.tensor
    raw_cells: tl.tensor | None
    previous_cells: tl.tensor
    a: tl.tensor
    cell_weight: tl.tensor | None
    cell_bias: tl.tensor | None


@triton.jit
def lstm_cell(given, stats, tile, SEPARATE: tl.constexpr, dtype: tl.constexpr):
    # what is normalised; i, f, g, o; f c + i g, 0 outside the mask
    a = summed(given.input, given.a, tile, 4, SEPARATE, dtype)
    q = normed(a, stats, given.weight, given.bias, tile, 4)
    z_i, z_f, z_g, z_o = add_term(q, given.input, tile, 4, SEPARATE)
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)
    return a, (i, f, g, o), tl.where(tile[2], f * load(given.c, tile, 1, dtype)[0] + i * g, 0.0)


@triton.jit
def cell_statistics(
    c, given, stats, base, END, SEPARATE: tl.constexpr, FORM: tl.constexpr, dtype: tl.constexpr
):  # fmt: skip
    # mean and variance of the cells; c: those of the first tile
    totals, squares = no_sums(c, 1, 1), no_sums(c, 1, 1)
    for start in range(0, END, FORM.STEP):
        if not FORM.ONE:
            c = lstm_cell(given, stats, at(base, start, FORM.AXIS), SEPARATE, dtype)[2]
        totals = add_groups(totals, (c,), 1, 1)
    means = means_of(totals, base, 1, 1, FORM.AXIS)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, FORM.AXIS)
        if not FORM.ONE:
            c = lstm_cell(given, stats, tile, SEPARATE, dtype)[2]
        squares = add_squares(squares, (c,), means, tile[2], 1, 1)
    return means, means_of(squares, base, 1, 1, FORM.AXIS)


@triton.jit
def store_cell(C, CELLS, RAW, H, Y, CW, CB, c, o, cell_stats, tile):
    normalised = (c,)
    if cell_stats is not None:
        normalised = normed((c,), cell_stats, CW, CB, tile, 1)
    carried = (c,)
    if RAW is not None:
        carried = normalised
    y = (o * tanh(normalised[0]),)
    store(RAW, (c,), tile, 1)
    store(CELLS, carried, tile, 1)
    store(C, carried, tile, 1)
    store(H, y, tile, 1)
    store(Y, y, tile, 1)


@triton.jit
def cell_grads(given, cell_stats, tile, dtype: tl.constexpr):
    # of the normalised cell (the cell, if there is no norm), its xhat, and do
    o = load(given.gates, tile, 4, dtype)[3]
    dy = load(given.dy, tile, 1, dtype)[0] + load(given.dh, tile, 1, dtype)[0]
    xhat = load(given.cells if given.raw_cells is None else given.raw_cells, tile, 1, dtype)
    normalised = xhat
    if cell_stats is not None:
        normalised = normed(xhat, cell_stats, given.cell_weight, given.cell_bias, tile, 1)
        xhat = standardised(xhat, cell_stats, 1)
    t = tanh(normalised[0])
    dn = dy * o * (1 - t * t)
    if cell_stats is None or given.raw_cells is not None:
        dn += load(given.dc, tile, 1, dtype)[0]
    return (dn,), xhat, dy * t


@triton.jit
def cell_sums(
    dn, xhat, WEIGHT, given, cell_stats, base, END, FORM: tl.constexpr, dtype: tl.constexpr
):  # fmt: skip
    # of g = dn weight and g xhat; dn, xhat: those of the first tile
    sums = no_sums(dn[0], 1, 1), no_sums(dn[0], 1, 1)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, FORM.AXIS)
        if not FORM.ONE:
            dn, xhat, _ = cell_grads(given, cell_stats, tile, dtype)
        sums = add_sums(sums, times_parameter(dn, WEIGHT, tile, 1), xhat, 1, 1)
    return sums


@triton.jit
def lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, tile, dtype: tl.constexpr):
    # dz and xhat of the gates, dc of the step before
    dcell = dn
    if cell_stats is not None:
        dcell = through_norm(times_parameter(dn, given.cell_weight, tile, 1), cell_xhat, cell_stats, cell_means, 1)
    dc = dcell[0]
    if cell_stats is not None and given.raw_cells is None:
        dc += load(given.dc, tile, 1, dtype)[0]
    i, f, g, o = load(given.gates, tile, 4, dtype)
    di, df = dc * g * i * (1 - i), dc * load(given.previous_cells, tile, 1, dtype)[0] * f * (1 - f)
    xhats = standardised(load(given.a, tile, 4, dtype), stats, 4)
    return (di, df, dc * i * (1 - g * g), do * o * (1 - o)), xhats, dc * f


@triton.jit
def gate_sums(
    dz, xhats, WEIGHT, given, stats, cell_stats, cell_means, base, END, PER: tl.constexpr, FORM: tl.constexpr,
    dtype: tl.constexpr,
):  # fmt: skip
    # as cell_sums, of each group of gates
    sums = no_sums(dz[0], 4, PER), no_sums(dz[0], 4, PER)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, FORM.AXIS)
        if not FORM.ONE:
            dn, cell_xhat, do = cell_grads(given, cell_stats, tile, dtype)
            dz, xhats, _ = lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, tile, dtype)
        sums = add_sums(sums, times_parameter(dz, WEIGHT, tile, 4), xhats, 4, PER)
    return sums
