"""Weight norm: the filter kernels, without a mean (Salimans & Kingma 2016, arXiv:1602.07868)."""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.launch import Tile, on_device
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.values import rounded
from normkernels._backends.triton.filters.backward import backward
from normkernels._backends.triton.filters.forward import forward
from normkernels._backends.triton.filters.tiles import inverse

PROJECTED = {2: Tile(4, 1024, 4), 4: Tile(4, 1024, 4), 8: Tile(4, 512, 8)}  # itemsize -> filters, values at a time


@on_device
def weight_norm_fwd(a):
    """w = g v / |v|."""
    forward(a.v, a.g, a.w, None, a.norm, 0.0)


@on_device
def weight_norm_bwd(a):
    """dg = <dw, v> / |v|, dv = g / |v| (dw - v <dw, v> / |v|^2)."""
    backward(a.dw, a.v, a.g, None, a.norm, a.dv, a.dg)


@triton.jit
def chunk(W, start, N, BLOCK_N: tl.constexpr):
    cols = start + tl.arange(0, BLOCK_N)
    return W[:, None] + cols[None, :], cols[None, :] < N[:, None]


@triton.jit
def scale_to_one(addresses, N, LIKE, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    # w / |w| in place, of filters at these addresses, N values each
    own: tl.constexpr = LIKE.dtype.element_ty
    dtype: tl.constexpr = tl.float64 if own == tl.float64 else tl.float32
    W = addresses.to(LIKE.dtype)
    if ALIGN > 1:
        W, N = tl.multiple_of(W, 16), N // ALIGN * ALIGN
    squares = tl.zeros([BLOCK_M, BLOCK_N], dtype)
    for start in range(0, tl.max(N, axis=0), BLOCK_N):
        at, mask = chunk(W, start, N, BLOCK_N)
        w = tl.load(at, mask=mask, other=0.0).to(dtype)
        squares += w * w
    factor = inverse(tl.sqrt(tl.sum(squares, axis=1)))[:, None]
    for start in range(0, tl.max(N, axis=0), BLOCK_N):
        at, mask = chunk(W, start, N, BLOCK_N)
        tl.store(at, rounded(tl.load(at, mask=mask, other=0.0).to(dtype) * factor, own), mask=mask)


@triton.jit(do_not_specialize=["filters", "aligned"])
def filters_project_kernel(
    TABLE, LIKE, filters, aligned,  # table: (2, filters), addresses and lengths; like: any weight, for its type
    MIXED: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    addresses = tl.load(TABLE + i, mask=i < filters, other=0)
    N = tl.load(TABLE + filters + i, mask=i < filters, other=0)
    if not MIXED:
        scale_to_one(addresses, N, LIKE, ALIGN, BLOCK_M, BLOCK_N)
    elif (tl.program_id(0) + 1) * BLOCK_M <= aligned:
        scale_to_one(addresses, N, LIKE, ALIGN, BLOCK_M, BLOCK_N)
    else:
        scale_to_one(addresses, N, LIKE, 1, BLOCK_M, BLOCK_N)


@functools.lru_cache(maxsize=64)
def table(weights: tuple[tuple[int, int, int], ...], itemsize: int, device: torch.device) -> tuple[Tensor, int]:
    """(2, filters), address and length of each, those first that 128-bit accesses fit; and how many these are."""

    def fits(weight: tuple[int, int, int]) -> bool:
        address, _, N = weight
        return address % 16 == 0 and N * itemsize % 16 == 0

    first = sorted(weights, key=fits, reverse=True)
    filters = [(address + i * N * itemsize, N) for address, M, N in first for i in range(M)]
    return torch.tensor(filters).t().contiguous().to(device), sum(M for _, M, N in filter(fits, weights))


def weight_norm_project(weights: list[Tensor]) -> None:
    """w = w / |w| in place, for every filter (row) of every contiguous (M, N) tensor, in one launch."""
    like = weights[0]
    once = dict.fromkeys((w.data_ptr(), *w.shape) for w in weights)  # a shared weight, or two programs would race
    addresses, aligned = table(tuple(once), like.element_size(), like.device)
    filters, tile = addresses.shape[1], PROJECTED[like.element_size()]
    with torch.cuda.device_of(like):
        filters_project_kernel[(cdiv(filters, tile.BLOCK_M),)](
            addresses, like, filters, aligned, MIXED=0 < aligned < filters,
            ALIGN=16 // like.element_size() if aligned else 1, **tile._asdict(),
        )  # fmt: skip
