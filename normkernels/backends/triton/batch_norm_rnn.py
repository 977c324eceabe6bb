"""The RNN with batch norm: for each step a product and one kernel (Laurent et al. 2016, arXiv:1510.01378)."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import activation
from normkernels.backends.triton.base.launch import on_device
from normkernels.backends.triton.base.numbers import cdiv
from normkernels.backends.triton.base.sums import finalise
from normkernels.backends.triton.recurrent.batch import (
    column_sizes,
    columns_of,
    load_line,
    means_from,
    store_line,
    store_sums,
    workspace,
)
from normkernels.backends.triton.recurrent.norm import add_sums, no_sums, statistics, through_norm, with_rstd
from normkernels.backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels.backends.triton.recurrent.tiles import add_term, at, normed, rnn_grads, store, summed, times_parameter


@triton.jit(do_not_specialize=["T", "START", "OWN", "M"])
def batch_norm_rnn_forward_kernel(
    X, A, W, B, H, Y, MEAN, VAR,  # as in the schema
    T, START, OWN, M, N,  # M rows of step T: from row START of a sequence, row OWN of what may be kept of one step
    EPS: tl.float64, TRAINING: tl.constexpr, SEPARATE: tl.constexpr, ACT: tl.constexpr,
    ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_M if ONE else M
    dtype: tl.constexpr = MEAN.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, Y, A = X + first * N, Y + first * N, A + own * N
    base = columns_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    if TRAINING:
        moments = statistics(X, A, base, END, 1, 1, SEPARATE, ONE, BLOCK_M, 0, dtype)
    else:
        moments = load_line(MEAN, T, base, 1), load_line(VAR, T, base, 1)
    stats = with_rstd(*moments, EPS, 1)
    for start in range(0, END, BLOCK_M):
        tile = at(base, start, 0)
        a = summed(X, A, tile, 1, SEPARATE, dtype)
        (z,) = add_term(normed(a, stats, W, B, tile, 1), X, tile, 1, SEPARATE)
        y = (activation(z, ACT, 0.0),)
        store(A if not SEPARATE else None, a, tile, 1)
        store(H, y, tile, 1)
        store(Y, y, tile, 1)
    store_line(MEAN if TRAINING else None, T, moments[0], base, 1)
    store_line(VAR if TRAINING else None, T, moments[1], base, 1)


@triton.jit(do_not_specialize=["T", "START", "M"])
def batch_norm_rnn_backward_kernel(
    DY, Y, A, MEAN, VAR, W, DH, DINPUT, DA, PARTIAL_W, PARTIAL_B,  # as in the schema; partials: (T, N)
    T, START, M, N,
    EPS: tl.float64, TRAINING: tl.constexpr, ACT: tl.constexpr,
    ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_M if ONE else M
    dtype: tl.constexpr = MEAN.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    DY, Y, A, DINPUT = DY + offset, Y + offset, A + offset, DINPUT + offset
    if DA is not None:
        DA = DA + offset
    base = columns_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    stats = with_rstd(load_line(MEAN, T, base, 1), load_line(VAR, T, base, 1), EPS, 1)
    dz, xhat = rnn_grads(DY, Y, DH, A, stats, at(base, 0, 0), ACT, dtype)
    sums = no_sums(dz[0], 1, 1), no_sums(dz[0], 1, 1)
    for start in range(0, END, BLOCK_M):
        if not ONE:
            dz, xhat = rnn_grads(DY, Y, DH, A, stats, at(base, start, 0), ACT, dtype)
        sums = add_sums(sums, dz, xhat, 1, 1)
    means = means_from(sums, W, base, 1, TRAINING)
    store_sums(PARTIAL_W, PARTIAL_B, T, sums, base, 1)
    for start in range(0, END, BLOCK_M):
        tile = at(base, start, 0)
        if not ONE:
            dz, xhat = rnn_grads(DY, Y, DH, A, stats, tile, ACT, dtype)
        da = through_norm(times_parameter(dz, W, tile, 1), xhat, stats, means, 1)
        store(DINPUT, da if DA is None else dz, tile, 1)
        store(DA, da, tile, 1)


@on_device
def batch_norm_rnn_fwd(
    input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, var, training, separate, nonlinearity, eps, reverse
):
    """y = h = f(BN_t(weight_hh h) + input) step after step, or f(BN_t(weight_hh h + input))."""
    N, sizes = h.shape[1], column_sizes(a, *h.shape)
    for step in forward_steps(h, weight_hh, a, y, batch_sizes, reverse):
        batch_norm_rnn_forward_kernel[(cdiv(N, sizes["BLOCK_N"]),)](
            input, a, weight, bias, h, y, mean, var, step.t, step.start, step.own, step.n, N,
            EPS=eps, TRAINING=training, SEPARATE=separate, ACT=nonlinearity, **sizes,
        )  # fmt: skip


@on_device
def batch_norm_rnn_bwd(
    dy, y, a, mean, var, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias, training, nonlinearity, eps,
    reverse,
):  # fmt: skip
    """dinput = dy f'(y), da through the norm (da None: as dinput), dh = weight_hh^T da, backwards."""
    N, sizes = dh.shape[1], column_sizes(a, *dh.shape)
    partials = workspace(mean, dweight, dbias)
    for step in backward_steps(dh, weight_hh, dinput if da is None else da, batch_sizes, reverse):
        batch_norm_rnn_backward_kernel[(cdiv(N, sizes["BLOCK_N"]),)](
            dy, y, a, mean, var, weight, dh, dinput, da, *partials, step.t, step.start, step.n, N,
            EPS=eps, TRAINING=training, ACT=nonlinearity, **sizes,
        )  # fmt: skip
    finalise(*partials, dweight, dbias)
