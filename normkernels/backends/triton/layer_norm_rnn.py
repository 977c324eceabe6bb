"""The RNN with layer norm: for each step a product and one kernel (Ba et al. 2016, arXiv:1607.06450)."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import activation
from normkernels.backends.triton.base.launch import on_device
from normkernels.backends.triton.base.numbers import cdiv
from normkernels.backends.triton.base.sums import finalise
from normkernels.backends.triton.recurrent.layer import (
    add_to_lines,
    load_statistics,
    row_sizes,
    rows_of,
    store_statistics,
    workspace,
)
from normkernels.backends.triton.recurrent.norm import add_sums, means_of, no_sums, statistics, through_norm, with_rstd
from normkernels.backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels.backends.triton.recurrent.tiles import add_term, at, normed, rnn_grads, store, summed, times_parameter


@triton.jit(do_not_specialize=["START", "OWN", "M"])
def layer_norm_rnn_forward_kernel(
    X, A, W, B, H, Y, MEAN, RSTD,  # as in the schema
    START, OWN, M, N,  # a step's M rows: from row START of a sequence, from row OWN of what may be kept of one step
    EPS: tl.float64, SEPARATE: tl.constexpr, ACT: tl.constexpr,
    ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_N if ONE else N
    dtype: tl.constexpr = MEAN.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, Y, A = X + first * N, Y + first * N, A + own * N
    base = rows_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    moments = statistics(X, A, base, END, 1, 1, SEPARATE, ONE, BLOCK_N, 1, dtype)
    stats = with_rstd(*moments, EPS, 1)
    for start in range(0, END, BLOCK_N):
        tile = at(base, start, 1)
        a = summed(X, A, tile, 1, SEPARATE, dtype)
        (z,) = add_term(normed(a, stats, W, B, tile, 1), X, tile, 1, SEPARATE)
        y = (activation(z, ACT, 0.0),)
        store(A if not SEPARATE else None, a, tile, 1)
        store(H, y, tile, 1)
        store(Y, y, tile, 1)
    store_statistics(MEAN, RSTD, stats, base, own, 1, 1)


@triton.jit(do_not_specialize=["START", "M", "each"])
def layer_norm_rnn_backward_kernel(
    DY, Y, A, MEAN, RSTD, W, DH, DINPUT, DA, PARTIAL_W, PARTIAL_B,  # as in the schema; partials: (lines, N)
    START, M, N, each,
    ACT: tl.constexpr, ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_N if ONE else N
    dtype: tl.constexpr = MEAN.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    DY, Y, A, DINPUT = DY + offset, Y + offset, A + offset, DINPUT + offset
    if DA is not None:
        DA = DA + offset
    first = tl.program_id(0) * each
    for block in range(first, tl.minimum(first + each, tl.cdiv(M, BLOCK_M))):
        base = rows_of(block, M, N, BLOCK_M, BLOCK_N)
        stats = load_statistics(MEAN, RSTD, base, START, 1, 1)
        dz, xhat = rnn_grads(DY, Y, DH, A, stats, at(base, 0, 1), ACT, dtype)
        sums = no_sums(dz[0], 1, 1), no_sums(dz[0], 1, 1)
        for start in range(0, END, BLOCK_N):
            tile = at(base, start, 1)
            if not ONE:
                dz, xhat = rnn_grads(DY, Y, DH, A, stats, tile, ACT, dtype)
            sums = add_sums(sums, times_parameter(dz, W, tile, 1), xhat, 1, 1)
        means = means_of(sums[0], base, 1, 1, 1), means_of(sums[1], base, 1, 1, 1)
        for start in range(0, END, BLOCK_N):
            tile = at(base, start, 1)
            if not ONE:
                dz, xhat = rnn_grads(DY, Y, DH, A, stats, tile, ACT, dtype)
            da = through_norm(times_parameter(dz, W, tile, 1), xhat, stats, means, 1)
            store(DINPUT, da if DA is None else dz, tile, 1)
            store(DA, da, tile, 1)
            add_to_lines(PARTIAL_W, PARTIAL_B, dz, xhat, tile, 1)


@on_device
def layer_norm_rnn_fwd(
    input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, separate, nonlinearity, eps, reverse
):
    """y = h = f(LN(weight_hh h) + input) step after step, or f(LN(weight_hh h + input))."""
    N, sizes = h.shape[1], row_sizes(a, h.shape[1], 1)
    for step in forward_steps(h, weight_hh, a, y, batch_sizes, reverse):
        layer_norm_rnn_forward_kernel[(cdiv(step.n, sizes["BLOCK_M"]),)](
            input, a, weight, bias, h, y, mean, rstd, step.start, step.own, step.n, N,
            EPS=eps, SEPARATE=separate, ACT=nonlinearity, **sizes,
        )  # fmt: skip


@on_device
def layer_norm_rnn_bwd(
    dy, y, a, mean, rstd, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias, nonlinearity, reverse
):
    """dinput = dy f'(y), da through the norm (da None: as dinput), dh = weight_hh^T da, backwards."""
    N, sizes = dh.shape[1], row_sizes(a, dh.shape[1], 1)
    each, partials = workspace(mean, len(dh), sizes["BLOCK_M"], dweight, dbias)
    for step in backward_steps(dh, weight_hh, dinput if da is None else da, batch_sizes, reverse):
        layer_norm_rnn_backward_kernel[(cdiv(step.n, each * sizes["BLOCK_M"]),)](
            dy, y, a, mean, rstd, weight, dh, dinput, da, *partials, step.start, step.n, N, each,
            ACT=nonlinearity, **sizes,
        )  # fmt: skip
    finalise(*partials, dweight, dbias)
