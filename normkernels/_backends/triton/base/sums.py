"""Sums over rows of partial results, always in the same order."""

import triton
import triton.language as tl
from torch import Tensor

from normkernels._backends.triton.base.numbers import cdiv, next_power_of_2
from normkernels._backends.triton.base.values import load_rows, rounded


@triton.jit(do_not_specialize=["P"])
def partial_sums_kernel(PARTIAL_W, PARTIAL_B, DW, DB, P, N, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr):
    # one program for some columns of dweight or of dbias
    sum_partials(PARTIAL_W, PARTIAL_B, DW, DB, tl.program_id(0), tl.program_id(1), P, N, BLOCK_P, BLOCK_N)


@triton.jit
def sum_partials(
    PARTIAL_W, PARTIAL_B, DW, DB, block, second, P, N, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    # a block of columns of the first or the second of those that are wanted; one loop for both, which is half the code
    cols = block * BLOCK_N + tl.arange(0, BLOCK_N)
    PARTIAL = PARTIAL_W
    if DW is None:
        PARTIAL = PARTIAL_B
    elif DB is not None:
        if second == 1:
            PARTIAL = PARTIAL_B
    total = tl.zeros([BLOCK_P, BLOCK_N], PARTIAL.dtype.element_ty)
    for start in range(0, P, BLOCK_P):
        rows = start + tl.arange(0, BLOCK_P).to(tl.int64)
        total += load_rows(PARTIAL, rows, cols, N, (rows[:, None] < P) & (cols[None, :] < N), total.dtype)
    sums = tl.sum(total, axis=0)
    if DW is not None and (DB is None or second == 0):
        tl.store(DW + cols, rounded(sums, DW.dtype.element_ty), mask=cols < N)
    if DB is not None and (DW is None or second == 1):
        tl.store(DB + cols, rounded(sums, DB.dtype.element_ty), mask=cols < N)


def finalise(partial_w: Tensor | None, partial_b: Tensor | None, dweight: Tensor | None, dbias: Tensor | None) -> None:
    """dweight, dbias: the sums over dim 0 of the partial rows (P, N), always in the same order."""
    wanted = (dweight is not None) + (dbias is not None)
    if not wanted:
        return
    P, N = (partial_w if dbias is None else partial_b).shape
    # what a program asks for at once is all that it reads, as a rule
    BLOCK_P = min(512, max(32, next_power_of_2(P)))
    BLOCK_N = 4096 // BLOCK_P
    partial_sums_kernel[(cdiv(N, BLOCK_N), wanted)](
        partial_w, partial_b, dweight, dbias, P, N, BLOCK_P=BLOCK_P, BLOCK_N=BLOCK_N, num_warps=8
    )
