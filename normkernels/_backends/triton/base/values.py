"""Values: how kernels convert, load and scale what is in registers, whatever they reduce over."""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """x in ``dtype``, rounded to nearest even; Triton's interpreter would truncate to bfloat16."""
    if INTERPRETED and (dtype == tl.bfloat16 and x.dtype == tl.float32):
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def number(value, dtype: tl.constexpr):
    """A float that a launcher was given, in ``dtype``: it comes as float64, or as a Python float if interpreted."""
    return tl.full((), value, dtype)


@triton.jit
def load_rows(P, rows, cols, stride, mask, dtype: tl.constexpr):
    return tl.load(P + rows[:, None] * stride + cols[None, :], mask=mask, other=0.0).to(dtype)


@triton.jit
def inside(rows, cols, M, N):
    # a lone row is always one of the M
    return (cols[None, :] < N) & ((rows[:, None] < M) | (rows.shape[0] == 1))


@triton.jit
def affine(xhat, w, b):
    # u = xhat w + b, both (1, BLOCK_N) or None
    if w is not None:
        xhat = xhat * w
    if b is not None:
        xhat = xhat + b
    return xhat
