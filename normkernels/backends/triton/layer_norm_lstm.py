"""The LSTM with layer norm: for each step a product and one kernel (Ba et al. 2016, arXiv:1607.06450)."""

import triton
import triton.language as tl

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
from normkernels.backends.triton.recurrent.lstm import (
    cell_grads,
    cell_statistics,
    cell_sums,
    gate_sums,
    lstm_cell,
    lstm_grads,
    store_cell,
)
from normkernels.backends.triton.recurrent.norm import means_of, statistics, through_norm, with_rstd
from normkernels.backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels.backends.triton.recurrent.tiles import at, store, times_parameter


@triton.jit(do_not_specialize=["START", "OWN", "M"])
def layer_norm_lstm_forward_kernel(
    X, A, W, B, CW, CB, H, C, Y, MEAN, RSTD, GATES, CELLS, RAW, CELL_MEAN, CELL_RSTD,  # as in the schema
    START, OWN, M, N,  # a step's M rows: from row START of a sequence, from row OWN of what may be kept of one step
    EPS: tl.float64, PER: tl.constexpr, SEPARATE: tl.constexpr,
    ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_N if ONE else N
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
    base = rows_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    moments = statistics(X, A, base, END, 4, PER, SEPARATE, ONE, BLOCK_N, 1, dtype)
    stats, cell_stats = with_rstd(*moments, EPS, 4), None
    a, gates, c = lstm_cell(X, A, W, B, C, stats, at(base, 0, 1), SEPARATE, dtype)
    if CELL_MEAN is not None:
        moments = cell_statistics(c, X, A, W, B, C, stats, base, END, SEPARATE, ONE, BLOCK_N, 1, dtype)
        cell_stats = with_rstd(*moments, EPS, 1)
    for start in range(0, END, BLOCK_N):
        tile = at(base, start, 1)
        if not ONE:
            a, gates, c = lstm_cell(X, A, W, B, C, stats, tile, SEPARATE, dtype)
        store_cell(C, CELLS, RAW, H, Y, CW, CB, c, gates[3], cell_stats, tile)
        store(A if not SEPARATE else None, a, tile, 4)
        store(GATES, gates, tile, 4)
    store_statistics(MEAN, RSTD, stats, base, own, 4, PER)
    if CELL_MEAN is not None:
        store_statistics(CELL_MEAN, CELL_RSTD, cell_stats, base, own, 1, 1)


@triton.jit(do_not_specialize=["START", "M", "each"])
def layer_norm_lstm_backward_kernel(
    DY, GATES, CELLS, RAW, CELL_MEAN, CELL_RSTD, PREVIOUS, A, MEAN, RSTD, W, CW, CB, DH, DC, DINPUT, DA,  # the schema's
    PARTIAL_W, PARTIAL_B, PARTIAL_CW, PARTIAL_CB, START, M, N, each,  # partials: (lines, 4 N), (lines, N)
    PER: tl.constexpr, ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_N if ONE else N
    dtype: tl.constexpr = MEAN.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    A, GATES, DINPUT = A + offset * 4, GATES + offset * 4, DINPUT + offset * 4
    if DA is not None:
        DA = DA + offset * 4
    if RAW is not None:
        RAW = RAW + offset
    given = DY + offset, DH, DC, GATES, CELLS + offset, RAW, PREVIOUS + offset, A, CW, CB
    first = tl.program_id(0) * each
    for block in range(first, tl.minimum(first + each, tl.cdiv(M, BLOCK_M))):
        base = rows_of(block, M, N, BLOCK_M, BLOCK_N)
        stats, cell_stats, cell_means = load_statistics(MEAN, RSTD, base, START, 4, PER), None, None
        if CELL_MEAN is not None:
            cell_stats = load_statistics(CELL_MEAN, CELL_RSTD, base, START, 1, 1)
        tile = at(base, 0, 1)
        dn, cell_xhat, do = cell_grads(given, cell_stats, tile, dtype)
        if CELL_MEAN is not None:
            sums = cell_sums(dn, cell_xhat, CW, given, cell_stats, base, END, ONE, BLOCK_N, 1, dtype)
            cell_means = means_of(sums[0], base, 1, 1, 1), means_of(sums[1], base, 1, 1, 1)
        dz, xhats, dc = lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, tile, dtype)
        sums = gate_sums(
            dz, xhats, W, given, stats, cell_stats, cell_means, base, END, PER, ONE, BLOCK_N, 1, dtype
        )  # fmt: skip
        means = means_of(sums[0], base, 4, PER, 1), means_of(sums[1], base, 4, PER, 1)
        for start in range(0, END, BLOCK_N):
            here = at(base, start, 1)
            if not ONE:
                dn, cell_xhat, do = cell_grads(given, cell_stats, here, dtype)
                dz, xhats, dc = lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, here, dtype)
            da = through_norm(times_parameter(dz, W, here, 4), xhats, stats, means, 4)
            store(DINPUT, da if DA is None else dz, here, 4)
            store(DA, da, here, 4)
            store(DC, (dc,), here, 1)
            add_to_lines(PARTIAL_W, PARTIAL_B, dz, xhats, here, 4)
            if CELL_MEAN is not None:
                add_to_lines(PARTIAL_CW, PARTIAL_CB, dn, cell_xhat, here, 1)


@on_device
def layer_norm_lstm_fwd(
    input, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean, rstd, gates, cells,
    raw_cells, cell_mean, cell_rstd, groups, separate, eps, reverse,
):  # fmt: skip
    """i, f, g, o of LN(weight_hh h) + input, c = f c + i g, y = h = o tanh(LN(c)), step after step."""
    N, sizes = h.shape[1], row_sizes(a, h.shape[1], 4)
    for step in forward_steps(h, weight_hh, a, y, batch_sizes, reverse):
        layer_norm_lstm_forward_kernel[(cdiv(step.n, sizes["BLOCK_M"]),)](
            input, a, weight, bias, cell_weight, cell_bias, h, c, y, mean, rstd, gates, cells, raw_cells, cell_mean,
            cell_rstd, step.start, step.own, step.n, N, EPS=eps, PER=groups[0], SEPARATE=separate, **sizes,
        )  # fmt: skip


@on_device
def layer_norm_lstm_bwd(
    dy, gates, cells, raw_cells, cell_mean, cell_rstd, previous_cells, a, mean, rstd, weight_hh, weight, cell_weight,
    cell_bias, batch_sizes, dh, dc, dinput, da, dweight, dbias, dcell_weight, dcell_bias, groups, reverse,
):  # fmt: skip
    """dinput of the gates' sums, da through the norm (da None: as dinput), dh = weight_hh^T da, dc, backwards."""
    N, sizes = dh.shape[1], row_sizes(a, dh.shape[1], 4, most=4)
    each, partials = workspace(mean, len(dh), sizes["BLOCK_M"], dweight, dbias, dcell_weight, dcell_bias)
    for step in backward_steps(dh, weight_hh, dinput if da is None else da, batch_sizes, reverse):
        layer_norm_lstm_backward_kernel[(cdiv(step.n, each * sizes["BLOCK_M"]),)](
            dy, gates, cells, raw_cells, cell_mean, cell_rstd, previous_cells, a, mean, rstd, weight, cell_weight,
            cell_bias, dh, dc, dinput, da, *partials, step.start, step.n, N, each, PER=groups[0], **sizes,
        )  # fmt: skip
    finalise(*partials[:2], dweight, dbias)
    finalise(*partials[2:], dcell_weight, dcell_bias)
