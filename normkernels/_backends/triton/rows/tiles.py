"""Rows: what the kernels share on loaded rows.

A row that a program holds is a tuple of PIECES tiles side by side, (BLOCK_M, BLOCK_N) each; only the last one may lack
columns, so 5120 columns take five tiles of 1024 where the next power of two would leave three in eight lanes idle.
"""

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.activations import activation, derivative
from normkernels._backends.triton.base.values import affine, number, rounded
from normkernels._backends.triton.rows.runs import place


def samples(weight: Tensor | None, bias: Tensor | None) -> int | None:
    """B where weight and bias are (B, N), a row for each of as many samples of M / B rows; else None."""
    given = bias if weight is None else weight
    return len(given) if given is not None and given.dim() == 2 else None


@triton.jit
def length(N, FORM: tl.constexpr):
    # N with what is known of it
    if FORM.EXACT:
        N = FORM.PIECES * FORM.BLOCK_N
    else:
        N = N // FORM.ALIGN * FORM.ALIGN
    return N


@triton.jit
def sample(B):
    # which of B samples the program is for, and how many programs each has: those of a sample are neighbours
    each = tl.num_programs(0) // B
    return tl.program_id(0) // each, each


@triton.jit
def columns(i: tl.constexpr, FORM: tl.constexpr):
    # of piece i
    BLOCK_N: tl.constexpr = FORM.BLOCK_N
    return i * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]


@triton.jit
def inside(i: tl.constexpr, rows, M, N, FORM: tl.constexpr):
    # which values of piece i exist; a lone row is always one of the M
    if FORM.EXACT or i < FORM.PIECES - 1:
        mask = rows < M
    elif FORM.BLOCK_M * FORM.TILES == 1:
        mask = columns(i, FORM) < N
    else:
        mask = (rows < M) & (columns(i, FORM) < N)
    return mask


@triton.jit
def load_piece(P, i: tl.constexpr, rows, stride, M, N, dtype: tl.constexpr, FORM: tl.constexpr):
    at = P + place(rows, stride, FORM) + columns(i, FORM)
    if FORM.BLOCK_M * FORM.TILES == 1 and (FORM.EXACT or i < FORM.PIECES - 1):
        v = tl.load(at)
    else:
        v = tl.load(at, mask=inside(i, rows, M, N, FORM), other=0.0)
    return v.to(dtype)


@triton.jit
def store_piece(P, value, i: tl.constexpr, rows, stride, M, N, FORM: tl.constexpr):
    at = P + rows * stride + columns(i, FORM)
    value = rounded(value, P.dtype.element_ty)
    if FORM.BLOCK_M * FORM.TILES == 1 and (FORM.EXACT or i < FORM.PIECES - 1):
        tl.store(at, value)
    else:
        tl.store(at, value, mask=inside(i, rows, M, N, FORM))


@triton.jit
def minus(x, mean, i: tl.constexpr, N, FORM: tl.constexpr):
    # x - mean, and 0 outside
    x = x - mean
    if not (FORM.EXACT or i < FORM.PIECES - 1):
        x = tl.where(columns(i, FORM) < N, x, 0.0)
    return x


@triton.jit
def load_parameter(P, i: tl.constexpr, N, OFFSET, dtype: tl.constexpr, FORM: tl.constexpr):
    # p + offset as (1, BLOCK_N), or None
    if P is not None:
        # as many as there are values: of fewer, other threads would have other columns of them than of a row
        BLOCK_M: tl.constexpr = FORM.BLOCK_M
        BLOCK_N: tl.constexpr = FORM.BLOCK_N
        cols = tl.broadcast_to(columns(i, FORM), [BLOCK_M, BLOCK_N])
        if FORM.EXACT or i < FORM.PIECES - 1:
            p = tl.load(P + cols)
        else:
            p = tl.load(P + cols, mask=cols < N, other=0.0)
        p = p.to(dtype)
        if FORM.SHIFTED and OFFSET is not None:
            p += number(OFFSET, dtype)
        return p


@triton.jit
def load_parameters(P, N, OFFSET, dtype: tl.constexpr, FORM: tl.constexpr):
    # of every piece, or None
    if P is not None:
        PIECES: tl.constexpr = FORM.PIECES
        found = ()
        for i in tl.static_range(PIECES):
            p = load_parameter(P, i, N, OFFSET, dtype, FORM)
            found = found + (p,)
        return found


@triton.jit
def piece(v, i: tl.constexpr):
    # of a tuple or None
    if v is not None:
        return v[i]


@triton.jit
def added(x, FORM: tl.constexpr):
    # the pieces of a row, one upon the other
    PIECES: tl.constexpr = FORM.PIECES
    total = x[0]
    for i in tl.static_range(1, PIECES):
        total += x[i]
    return total


@triton.jit
def products(x, y, FORM: tl.constexpr):
    # the same of x y
    PIECES: tl.constexpr = FORM.PIECES
    total = x[0] * y[0]
    for i in tl.static_range(1, PIECES):
        total += x[i] * y[i]
    return total


@triton.jit
def shifted(P, low):
    # of values from column `low` on, or None
    if P is not None:
        return P + low


@triton.jit
def load_stat(P, rows, M):
    return tl.load(P + rows, mask=rows < M, other=0.0)[:, None]


@triton.jit
def load_pair(X, DY, i: tl.constexpr, rows, strides, M, N, FORM: tl.constexpr):
    # x and dy as they lie in memory
    x = load_piece(X, i, rows, strides.x, M, N, X.dtype.element_ty, FORM)
    return x, load_piece(DY, i, rows, strides.dy, M, N, DY.dtype.element_ty, FORM)


@triton.jit
def load_gate(P, i: tl.constexpr, rows, stride, M, N, FORM: tl.constexpr):
    # as it lies in memory, or None
    if P is not None:
        return load_piece(P, i, rows, stride, M, N, P.dtype.element_ty, FORM)


@triton.jit
def completed(u, gate, SLOPE, ACT: tl.constexpr):
    # act(u), or u act(gate)
    if gate is None:
        y = activation(u, ACT, SLOPE)
    else:
        y = u * activation(gate.to(u.dtype), ACT, SLOPE)
    return y


@triton.jit
def store_gate_grad(
    DGATE, dy, gate, u, i: tl.constexpr, rows, stride, M, N, SLOPE, ACT: tl.constexpr, FORM: tl.constexpr
):  # fmt: skip
    # dy u act'(gate), if it is wanted
    if DGATE is not None:
        dgate = dy.to(u.dtype) * u * derivative(gate.to(u.dtype), ACT, SLOPE)
        store_piece(DGATE, dgate, i, rows, stride, M, N, FORM)


@triton.jit
def grads(pair, gate, w, b, mean, rstd, SLOPE, ACT: tl.constexpr, CENTER: tl.constexpr):
    # xhat = (x - mean) rstd, du = dy act'(u) or dy act(gate); du is 0 outside the tensor, for dy is
    x, dy = pair
    xhat, du = x.to(rstd.dtype), dy.to(rstd.dtype)
    if CENTER:
        xhat = xhat - mean
    xhat = xhat * rstd
    if gate is not None:
        du = du * activation(gate.to(rstd.dtype), ACT, SLOPE)
    elif ACT != "identity":
        du = du * derivative(affine(xhat, w, b), ACT, SLOPE)
    return xhat, du


@triton.jit
def centre(x, mask, count):
    # x - mean, mean: two steps, for rounding leaves the first mean up to ulp(mean) / 2 off
    mean = tl.sum(x, axis=1)[:, None] / count
    x = tl.where(mask, x - mean, 0.0)
    rest = tl.sum(x, axis=1)[:, None] / count
    return tl.where(mask, x - rest, 0.0), mean, rest
