"""The LSTM with batch norm: for each step a product and one kernel (Cooijmans et al. 2017, arXiv:1603.09025)."""

import triton
import triton.language as tl

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
from normkernels.backends.triton.recurrent.lstm import (
    cell_grads,
    cell_statistics,
    cell_sums,
    gate_sums,
    lstm_cell,
    lstm_grads,
    store_cell,
)
from normkernels.backends.triton.recurrent.norm import statistics, through_norm, with_rstd
from normkernels.backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels.backends.triton.recurrent.tiles import at, store, times_parameter


@triton.jit(do_not_specialize=["T", "START", "OWN", "M"])
def batch_norm_lstm_forward_kernel(
    X, A, W, B, CW, CB, H, C, Y, MEAN, VAR, GATES, CELLS, RAW, CELL_MEAN, CELL_VAR,  # as in the schema
    T, START, OWN, M, N,  # M rows of step T: from row START of a sequence, row OWN of what may be kept of one step
    EPS: tl.float64, TRAINING: tl.constexpr, SEPARATE: tl.constexpr,
    ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_M if ONE else M
    dtype: tl.constexpr = MEAN.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, Y, A, GATES, CELLS = (
        X + first * (4 * N),
        Y + first * N,
        A + own * (4 * N),
        GATES + own * (4 * N),
        CELLS + own * N,
    )
    if RAW is not None:
        RAW = RAW + own * N
    base = columns_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    if TRAINING:
        moments = statistics(X, A, base, END, 4, 1, SEPARATE, ONE, BLOCK_M, 0, dtype)
    else:
        moments = load_line(MEAN, T, base, 4), load_line(VAR, T, base, 4)
    stats, cell_stats = with_rstd(*moments, EPS, 4), None
    a, gates, c = lstm_cell(X, A, W, B, C, stats, at(base, 0, 0), SEPARATE, dtype)
    if CELL_MEAN is not None:
        if TRAINING:
            cell_moments = cell_statistics(c, X, A, W, B, C, stats, base, END, SEPARATE, ONE, BLOCK_M, 0, dtype)
        else:
            cell_moments = load_line(CELL_MEAN, T, base, 1), load_line(CELL_VAR, T, base, 1)
        cell_stats = with_rstd(*cell_moments, EPS, 1)
    for start in range(0, END, BLOCK_M):
        tile = at(base, start, 0)
        if not ONE:
            a, gates, c = lstm_cell(X, A, W, B, C, stats, tile, SEPARATE, dtype)
        store_cell(C, CELLS, RAW, H, Y, CW, CB, c, gates[3], cell_stats, tile)
        store(A if not SEPARATE else None, a, tile, 4)
        store(GATES, gates, tile, 4)
    if TRAINING:
        store_line(MEAN, T, moments[0], base, 4)
        store_line(VAR, T, moments[1], base, 4)
        if CELL_MEAN is not None:
            store_line(CELL_MEAN, T, cell_moments[0], base, 1)
            store_line(CELL_VAR, T, cell_moments[1], base, 1)


@triton.jit(do_not_specialize=["T", "START", "M"])
def batch_norm_lstm_backward_kernel(
    DY, GATES, CELLS, RAW, CELL_MEAN, CELL_VAR, PREVIOUS, A, MEAN, VAR, W, CW, CB, DH, DC, DINPUT, DA,  # the schema's
    PARTIAL_W, PARTIAL_B, PARTIAL_CW, PARTIAL_CB, T, START, M, N,  # partials: (T, 4 N), (T, N)
    EPS: tl.float64, TRAINING: tl.constexpr,
    ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_M if ONE else M
    dtype: tl.constexpr = MEAN.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    A, GATES, DINPUT = A + offset * 4, GATES + offset * 4, DINPUT + offset * 4
    if DA is not None:
        DA = DA + offset * 4
    if RAW is not None:
        RAW = RAW + offset
    given = DY + offset, DH, DC, GATES, CELLS + offset, RAW, PREVIOUS + offset, A, CW, CB
    base = columns_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    stats = with_rstd(load_line(MEAN, T, base, 4), load_line(VAR, T, base, 4), EPS, 4)
    cell_stats, cell_means, tile = None, None, at(base, 0, 0)
    if CELL_MEAN is not None:
        cell_stats = with_rstd(load_line(CELL_MEAN, T, base, 1), load_line(CELL_VAR, T, base, 1), EPS, 1)
    dn, cell_xhat, do = cell_grads(given, cell_stats, tile, dtype)
    if CELL_MEAN is not None:
        sums_of_cell = cell_sums(dn, cell_xhat, None, given, cell_stats, base, END, ONE, BLOCK_M, 0, dtype)
        cell_means = means_from(sums_of_cell, CW, base, 1, TRAINING)
    dz, xhats, dc = lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, tile, dtype)
    sums = gate_sums(dz, xhats, None, given, stats, cell_stats, cell_means, base, END, 1, ONE, BLOCK_M, 0, dtype)
    means = means_from(sums, W, base, 4, TRAINING)
    store_sums(PARTIAL_W, PARTIAL_B, T, sums, base, 4)
    if CELL_MEAN is not None:
        store_sums(PARTIAL_CW, PARTIAL_CB, T, sums_of_cell, base, 1)
    for start in range(0, END, BLOCK_M):
        here = at(base, start, 0)
        if not ONE:
            dn, cell_xhat, do = cell_grads(given, cell_stats, here, dtype)
            dz, xhats, dc = lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, here, dtype)
        da = through_norm(times_parameter(dz, W, here, 4), xhats, stats, means, 4)
        store(DINPUT, da if DA is None else dz, here, 4)
        store(DA, da, here, 4)
        store(DC, (dc,), here, 1)


@on_device
def batch_norm_lstm_fwd(
    input, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean, var, gates, cells, raw_cells,
    cell_mean, cell_var, training, separate, eps, reverse,
):  # fmt: skip
    """i, f, g, o of BN_t(weight_hh h) + input, c = f c + i g, y = h = o tanh(BN_t(c)), step after step."""
    N, sizes = h.shape[1], column_sizes(a, *h.shape, walking=4)
    for step in forward_steps(h, weight_hh, a, y, batch_sizes, reverse):
        batch_norm_lstm_forward_kernel[(cdiv(N, sizes["BLOCK_N"]),)](
            input, a, weight, bias, cell_weight, cell_bias, h, c, y, mean, var, gates, cells, raw_cells, cell_mean,
            cell_var, step.t, step.start, step.own, step.n, N,
            EPS=eps, TRAINING=training, SEPARATE=separate, **sizes,
        )  # fmt: skip


@on_device
def batch_norm_lstm_bwd(
    dy, gates, cells, raw_cells, cell_mean, cell_var, previous_cells, a, mean, var, weight_hh, weight, cell_weight,
    cell_bias, batch_sizes, dh, dc, dinput, da, dweight, dbias, dcell_weight, dcell_bias, training, eps, reverse,
):  # fmt: skip
    """dinput of the gates' sums, da through the norm (da None: as dinput), dh = weight_hh^T da, dc, backwards."""
    N, sizes = dh.shape[1], column_sizes(a, *dh.shape, most=4)
    partials = workspace(mean, dweight, dbias, dcell_weight, dcell_bias)
    for step in backward_steps(dh, weight_hh, dinput if da is None else da, batch_sizes, reverse):
        batch_norm_lstm_backward_kernel[(cdiv(N, sizes["BLOCK_N"]),)](
            dy, gates, cells, raw_cells, cell_mean, cell_var, previous_cells, a, mean, var, weight, cell_weight,
            cell_bias, dh, dc, dinput, da, *partials, step.t, step.start, step.n, N,
            EPS=eps, TRAINING=training, **sizes,
        )  # fmt: skip
    finalise(*partials[:2], dweight, dbias)
    finalise(*partials[2:], dcell_weight, dcell_bias)
