"""Rows: what its kernels share on a loaded tile, the sum of partial rows, and every launch size."""

import functools
from collections.abc import Callable
from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from normkernels.backends.triton.base.numbers import cdiv, next_power_of_2


class Tile(NamedTuple):
    """What one program holds in registers: BLOCK_M rows of BLOCK_N columns."""

    BLOCK_M: int
    BLOCK_N: int
    num_warps: int


# itemsize of x -> the longest row that one program holds; then the segments of a longer row
FORWARD_LIMIT, BACKWARD_LIMIT = {2: 32768, 4: 32768, 8: 8192}, {2: 8192, 4: 8192, 8: 4096}
FORWARD_SEGMENT = Tile(1, 4096, 8)
BACKWARD_SEGMENT = {2: Tile(1, 1024, 4), 4: Tile(1, 1024, 4), 8: Tile(1, 1024, 8)}
GROUP = 16  # rows of a segment whose parameter gradients one program sums


def tile(N: int, limit: int, elements: int, itemsize: int) -> Tile | None:
    """Whole rows in registers, at least ``elements`` values in all; None if a row is longer than ``limit``.

    From N, the dtype and the activation alone, so that a row's result depends neither on M nor on the device.
    """
    if limit < N:
        return None
    BLOCK_N = max(16, next_power_of_2(N))
    BLOCK_M = max(1, elements // BLOCK_N)
    per_thread = 8 if itemsize == 8 else 16
    return Tile(BLOCK_M, BLOCK_N, min(32, max(4, BLOCK_M * BLOCK_N // (32 * per_thread))))


def unaligned(N: int, itemsize: int) -> bool:
    """Whether 128-bit accesses do not divide N: then every element has its own mask, and that takes registers."""
    return N % (16 // itemsize) != 0


def forward_tile(N: int, itemsize: int) -> Tile | None:
    limit = FORWARD_LIMIT[itemsize] // (4 if unaligned(N, itemsize) else 1)
    return tile(N, limit, 2048, itemsize)


def backward_tile(N: int, itemsize: int, activation: str) -> Tile | None:
    """Half as far with an activation, which keeps more values alive."""
    limit = BACKWARD_LIMIT[itemsize] // (2 if unaligned(N, itemsize) else 1) // (1 if activation == "identity" else 2)
    return tile(N, limit, 2048 if itemsize == 4 else 1024, itemsize)


def multiprocessors(t: Tensor) -> int:
    return torch.cuda.get_device_properties(t.device).multi_processor_count if t.is_cuda else 4


def programs(t: Tensor, blocks: int, num_warps: int) -> int:
    """Persistent programs for ``blocks`` pieces of work: 16 warps on every multiprocessor."""
    return min(blocks, multiprocessors(t) * max(1, 16 // num_warps))


def wave(t: Tensor, row_bytes: int) -> int:
    """How many rows to take at a time so that a second read of them finds them in L2."""
    l2 = torch.cuda.get_device_properties(t.device).L2_cache_size if t.is_cuda else 2**20
    return max(1, l2 // 2 // row_bytes)


def alignment(t: Tensor, *multiples: int) -> int:
    """Elements per access that lengths and strides allow, up to 128 bits."""
    return gcd(16 // t.element_size(), *multiples)


def on_device(launcher: Callable[..., None]) -> Callable[..., None]:
    """Launch on the device of the first tensor, whichever is current."""

    @functools.wraps(launcher)
    def launch(first, *rest):
        with torch.cuda.device_of(first):
            launcher(first, *rest)

    return launch


def stride(t: Tensor | None) -> int:
    return 0 if t is None else t.stride(0)


def accumulator(stat: Tensor, *shape: int) -> Tensor:
    """An unfilled workspace in the dtype of the statistics."""
    return stat.new_empty(shape)


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
def load_stat(P, rows, M):
    return tl.load(P + rows, mask=rows < M, other=0.0)[:, None]


@triton.jit
def add_residual(x, R, SUMMED, rows, cols, stride, mask, N):
    # s = x + residual, as rounded in memory
    s = rounded(x + load_rows(R, rows, cols, stride, mask, x.dtype), SUMMED.dtype.element_ty)
    tl.store(SUMMED + rows[:, None] * N + cols[None, :], s, mask=mask)
    return s.to(x.dtype)


@triton.jit
def centre(x, mask, count):
    # x - mean, mean: two steps, for rounding leaves the first mean up to ulp(mean) / 2 off
    mean = tl.sum(x, axis=1)[:, None] / count
    x = tl.where(mask, x - mean, 0.0)
    rest = tl.sum(x, axis=1)[:, None] / count
    return tl.where(mask, x - rest, 0.0), mean, rest


@triton.jit
def load_parameter(P, cols, N, OFFSET, dtype: tl.constexpr):
    # p + offset as (1, BLOCK_N), or None
    if P is not None:
        return tl.load(P + cols[None, :], mask=cols[None, :] < N, other=0.0).to(dtype) + number(OFFSET, dtype)


@triton.jit
def affine(xhat, w, b):
    # u = xhat w + b, both (1, BLOCK_N) or None
    if w is not None:
        xhat = xhat * w
    if b is not None:
        xhat = xhat + b
    return xhat


@triton.jit(do_not_specialize=["P"])
def _finalise_kernel(PARTIAL_W, PARTIAL_B, DW, DB, P, N, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr):
    cols = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    if DW is not None:
        sum_partials(PARTIAL_W, DW, cols, P, N, BLOCK_P, BLOCK_N)
    if DB is not None:
        sum_partials(PARTIAL_B, DB, cols, P, N, BLOCK_P, BLOCK_N)


@triton.jit
def sum_partials(PARTIAL, OUT, cols, P, N, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr):
    total = tl.zeros([BLOCK_P, BLOCK_N], PARTIAL.dtype.element_ty)
    for start in range(0, P, BLOCK_P):
        rows = start + tl.arange(0, BLOCK_P).to(tl.int64)
        total += load_rows(PARTIAL, rows, cols, N, (rows[:, None] < P) & (cols[None, :] < N), total.dtype)
    tl.store(OUT + cols, rounded(tl.sum(total, axis=0), OUT.dtype.element_ty), mask=cols < N)


def finalise(partial_w: Tensor | None, partial_b: Tensor | None, dweight: Tensor | None, dbias: Tensor | None) -> None:
    """dweight, dbias: the sums over dim 0 of the partial rows (P, N), always in the same order."""
    partial = partial_w if partial_b is None else partial_b
    if partial is not None:
        P, N = partial.shape
        _finalise_kernel[(cdiv(N, 32),)](
            partial_w, partial_b, dweight, dbias, P, N, BLOCK_P=128, BLOCK_N=32, num_warps=8
        )
