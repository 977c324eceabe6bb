"""The LSTM with batch norm: for each step a product and one kernel (Cooijmans et al. 2017, arXiv:1603.09025)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.recurrent import batch, lstm
from normkernels._backends.triton.recurrent.norm import statistics, through_norm, with_rstd
from normkernels._backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels._backends.triton.recurrent.tensors import backward_tensors, forward_tensors
from normkernels._backends.triton.recurrent.tiles import at, shifted, store, times_parameter


@triton.jit(do_not_specialize=["T", "START", "OWN", "M"])
def batch_norm_lstm_forward_kernel(
    t, T, START, OWN, M, N,  # M rows of step T: from row START of a sequence, row OWN of what may be kept of one step
    EPS: tl.float64, TRAINING: tl.constexpr, SEPARATE: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else M
    dtype: tl.constexpr = t.mean.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, A, Y = t.input + first * (4 * N), t.a + own * (4 * N), t.y + first * N
    GATES, CELLS = t.gates + own * (4 * N), t.cells + own * N
    RAW = shifted(t.raw_cells, own * N)
    given = lstm.Gates(X, A, t.weight, t.bias, t.c)
    base = batch.base(tl.program_id(0), M, N, FORM.BLOCK_M, FORM.BLOCK_N)
    if TRAINING:
        moments = statistics(X, A, base, END, 4, 1, SEPARATE, FORM, dtype)
    else:
        moments = batch.load_line(t.mean, T, base, 4), batch.load_line(t.spread, T, base, 4)
    stats, cell_stats = with_rstd(*moments, EPS, 4), None
    a, gates, c = lstm.lstm_cell(given, stats, at(base, 0, 0), SEPARATE, dtype)
    if t.cell_mean is not None:
        if TRAINING:
            cell_moments = lstm.cell_statistics(c, given, stats, base, END, SEPARATE, FORM, dtype)
        else:
            cell_moments = batch.load_line(t.cell_mean, T, base, 1), batch.load_line(t.cell_spread, T, base, 1)
        cell_stats = with_rstd(*cell_moments, EPS, 1)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, 0)
        if not FORM.ONE:
            a, gates, c = lstm.lstm_cell(given, stats, tile, SEPARATE, dtype)
        lstm.store_cell(t.c, CELLS, RAW, t.h, Y, t.cell_weight, t.cell_bias, c, gates[3], cell_stats, tile)
        store(A if not SEPARATE else None, a, tile, 4)
        store(GATES, gates, tile, 4)
    if TRAINING:
        batch.store_line(t.mean, T, moments[0], base, 4)
        batch.store_line(t.spread, T, moments[1], base, 4)
        if t.cell_mean is not None:
            batch.store_line(t.cell_mean, T, cell_moments[0], base, 1)
            batch.store_line(t.cell_spread, T, cell_moments[1], base, 1)


@triton.jit(do_not_specialize=["T", "START", "M"])
def batch_norm_lstm_backward_kernel(
    t, T, START, M, N,
    EPS: tl.float64, TRAINING: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else M
    dtype: tl.constexpr = t.mean.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    A, GATES, DINPUT = t.a + offset * 4, t.gates + offset * 4, t.dinput + offset * 4
    DA = shifted(t.da, offset * 4)
    RAW = shifted(t.raw_cells, offset)
    before = t.previous_cells + offset
    given = lstm.Given(
        t.dy + offset, t.dh, t.dc, GATES, t.cells + offset, RAW, before, A, t.cell_weight, t.cell_bias
    )  # fmt: skip
    base = batch.base(tl.program_id(0), M, N, FORM.BLOCK_M, FORM.BLOCK_N)
    stats = with_rstd(batch.load_line(t.mean, T, base, 4), batch.load_line(t.spread, T, base, 4), EPS, 4)
    cell_stats, cell_means, tile = None, None, at(base, 0, 0)
    if t.cell_mean is not None:
        cell_stats = with_rstd(
            batch.load_line(t.cell_mean, T, base, 1), batch.load_line(t.cell_spread, T, base, 1), EPS, 1
        )
    dn, cell_xhat, do = lstm.cell_grads(given, cell_stats, tile, dtype)
    if t.cell_mean is not None:
        sums_of_cell = lstm.cell_sums(dn, cell_xhat, None, given, cell_stats, base, END, FORM, dtype)
        cell_means = batch.means_from(sums_of_cell, t.cell_weight, base, 1, TRAINING)
    dz, xhats, dc = lstm.lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, tile, dtype)
    sums = lstm.gate_sums(dz, xhats, None, given, stats, cell_stats, cell_means, base, END, 1, FORM, dtype)
    means = batch.means_from(sums, t.weight, base, 4, TRAINING)
    batch.store_sums(t.partial_w, t.partial_b, T, sums, base, 4)
    if t.cell_mean is not None:
        batch.store_sums(t.partial_cell_w, t.partial_cell_b, T, sums_of_cell, base, 1)
    for start in range(0, END, FORM.STEP):
        here = at(base, start, 0)
        if not FORM.ONE:
            dn, cell_xhat, do = lstm.cell_grads(given, cell_stats, here, dtype)
            dz, xhats, dc = lstm.lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, here, dtype)
        da = through_norm(times_parameter(dz, t.weight, here, 4), xhats, stats, means, 4)
        store(DINPUT, da if DA is None else dz, here, 4)
        store(DA, da, here, 4)
        store(t.dc, (dc,), here, 1)


@on_device
def batch_norm_lstm_fwd(a):
    """i, f, g, o of BN_t(weight_hh h) + input, c = f c + i g, y = h = o tanh(BN_t(c)), step after step."""
    N, constants = a.h.shape[1], batch.form(a.a, *a.h.shape, walking=4)
    t = forward_tensors(a, a.var, a.cell_var)
    for step in forward_steps(a):
        batch_norm_lstm_forward_kernel[(cdiv(N, constants["FORM"].BLOCK_N),)](
            t, step.t, step.start, step.own, step.n, N,
            EPS=a.eps, TRAINING=a.training, SEPARATE=a.separate, **constants,
        )  # fmt: skip


@on_device
def batch_norm_lstm_bwd(a):
    """dinput of the gates' sums, da through the norm (da None: as dinput), dh = weight_hh^T da, dc, backwards."""
    N, constants = a.dh.shape[1], batch.form(a.a, *a.dh.shape, most=4)
    gradients = a.dweight, a.dbias, a.dcell_weight, a.dcell_bias
    partials = batch.workspace(a.mean, *gradients)
    t = backward_tensors(a, a.var, a.cell_var, partials)
    for step in backward_steps(a):
        batch_norm_lstm_backward_kernel[(cdiv(N, constants["FORM"].BLOCK_N),)](
            t, step.t, step.start, step.n, N, EPS=a.eps, TRAINING=a.training, **constants
        )
    finalise(*partials[:2], a.dweight, a.dbias)
    finalise(*partials[2:], a.dcell_weight, a.dcell_bias)
