"""Recurrent, on a loaded tile: the rows of a step by some units, of which it has G values, one for each gate.

base: (rows, cols, M, N), where a program starts among the M rows of a step and its N units. It walks along AXIS, over
which a norm is taken: the units of a row (1) or the rows of a unit (0). A tile is (rows, cols, mask, N), a statistic
(mean, rstd). What has a value for each gate is a tuple.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from normkernels._backends.triton.base.activations import activation
from normkernels._backends.triton.base.values import inside, rounded


class Form(NamedTuple):
    """The constants of a kernel; it walks by STEP along AXIS, and ONE: that is one tile."""

    AXIS: int
    ALIGN: int
    ONE: bool
    STEP: int
    BLOCK_M: int
    BLOCK_N: int


@triton.jit
def shifted(P, offset):
    # a buffer that may be absent, from there on
    if P is not None:
        return P + offset


@triton.jit
def at(base, start, AXIS: tl.constexpr):
    rows, cols, M, N = base
    if AXIS == 1:
        cols = cols + start
    else:
        rows = rows + start
    return rows, cols, inside(rows, cols, M, N), N


@triton.jit
def load(P, tile, G: tl.constexpr, dtype: tl.constexpr):
    rows, cols, mask, N = tile
    found = ()
    for gate in tl.static_range(G):
        offsets = rows[:, None] * (G * N) + (gate * N + cols[None, :])
        found += (tl.load(P + offsets, mask=mask, other=0.0).to(dtype),)
    return found


@triton.jit
def store(P, values, tile, G: tl.constexpr):
    if P is not None:
        rows, cols, mask, N = tile
        for gate in tl.static_range(G):
            offsets = rows[:, None] * (G * N) + (gate * N + cols[None, :])
            tl.store(P + offsets, rounded(values[gate], P.dtype.element_ty), mask=mask)


@triton.jit
def summed(X, A, tile, G: tl.constexpr, SEPARATE: tl.constexpr, dtype: tl.constexpr):
    # what is normalised: the product in A, with the input's term as rounded in memory
    found = load(A, tile, G, dtype)
    if not SEPARATE:
        x = load(X, tile, G, dtype)
        products = found
        found = ()
        for gate in tl.static_range(G):
            found += (rounded(products[gate] + x[gate], A.dtype.element_ty).to(dtype),)
    return found


@triton.jit
def times_parameter(values, W, tile, G: tl.constexpr):
    if W is not None:
        _, cols, _, N = tile
        found = ()
        for gate in tl.static_range(G):
            w = tl.load(W + (gate * N + cols[None, :]), mask=cols[None, :] < N, other=0.0).to(values[gate].dtype)
            found += (values[gate] * w,)
        values = found
    return values


@triton.jit
def plus_parameter(values, B, tile, G: tl.constexpr):
    if B is not None:
        _, cols, _, N = tile
        found = ()
        for gate in tl.static_range(G):
            b = tl.load(B + (gate * N + cols[None, :]), mask=cols[None, :] < N, other=0.0).to(values[gate].dtype)
            found += (values[gate] + b,)
        values = found
    return values


@triton.jit
def standardised(values, stats, G: tl.constexpr):
    found = ()
    for gate in tl.static_range(G):
        mean, rstd = stats[gate]
        found += ((values[gate] - mean) * rstd,)
    return found


@triton.jit
def normed(a, stats, W, B, tile, G: tl.constexpr):
    return plus_parameter(times_parameter(standardised(a, stats, G), W, tile, G), B, tile, G)


@triton.jit
def add_term(q, X, tile, G: tl.constexpr, SEPARATE: tl.constexpr):
    # the input's term, where it is not part of the sum
    if SEPARATE:
        x = load(X, tile, G, q[0].dtype)
        found = ()
        for gate in tl.static_range(G):
            found += (q[gate] + x[gate],)
        q = found
    return q


@triton.jit
def rnn_step(t, X, A, Y, stats, tile, SEPARATE: tl.constexpr, ACT: tl.constexpr, dtype: tl.constexpr):
    a = summed(X, A, tile, 1, SEPARATE, dtype)
    (z,) = add_term(normed(a, stats, t.weight, t.bias, tile, 1), X, tile, 1, SEPARATE)
    y = (activation(z, ACT, 0.0),)
    store(A if not SEPARATE else None, a, tile, 1)
    store(t.h, y, tile, 1)
    store(Y, y, tile, 1)


@triton.jit
def rnn_grads(DY, Y, DH, A, stats, tile, ACT: tl.constexpr, dtype: tl.constexpr):
    # dz from the output alone, and xhat
    dy, dh, y = load(DY, tile, 1, dtype)[0], load(DH, tile, 1, dtype)[0], load(Y, tile, 1, dtype)[0]
    dz = (dy + dh) * (1 - y * y) if ACT == "tanh" else tl.where(y > 0, dy + dh, 0.0)
    return (dz,), standardised(load(A, tile, 1, dtype), stats, 1)
