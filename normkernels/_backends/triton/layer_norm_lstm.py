"""The LSTM with layer norm: for each step a product and one kernel (Ba et al. 2016, arXiv:1607.06450)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.recurrent import layer, lstm
from normkernels._backends.triton.recurrent.norm import means_of, statistics, through_norm, with_rstd
from normkernels._backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels._backends.triton.recurrent.tensors import backward_tensors, forward_tensors
from normkernels._backends.triton.recurrent.tiles import at, shifted, store, times_parameter


@triton.jit(do_not_specialize=["START", "OWN", "M"])
def layer_norm_lstm_forward_kernel(
    t, START, OWN, M, N,  # a step's M rows: from row START of a sequence, from row OWN of what may be kept of one step
    EPS: tl.float64, PER: tl.constexpr, SEPARATE: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else N
    dtype: tl.constexpr = t.mean.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, A, Y = t.input + first * (4 * N), t.a + own * (4 * N), t.y + first * N
    GATES, CELLS = t.gates + own * (4 * N), t.cells + own * N
    RAW = shifted(t.raw_cells, own * N)
    given = lstm.Gates(X, A, t.weight, t.bias, t.c)
    base = layer.base(tl.program_id(0), M, N, FORM.BLOCK_M, FORM.BLOCK_N)
    moments = statistics(X, A, base, END, 4, PER, SEPARATE, FORM, dtype)
    stats, cell_stats = with_rstd(*moments, EPS, 4), None
    a, gates, c = lstm.lstm_cell(given, stats, at(base, 0, 1), SEPARATE, dtype)
    if t.cell_mean is not None:
        moments = lstm.cell_statistics(c, given, stats, base, END, SEPARATE, FORM, dtype)
        cell_stats = with_rstd(*moments, EPS, 1)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, 1)
        if not FORM.ONE:
            a, gates, c = lstm.lstm_cell(given, stats, tile, SEPARATE, dtype)
        lstm.store_cell(t.c, CELLS, RAW, t.h, Y, t.cell_weight, t.cell_bias, c, gates[3], cell_stats, tile)
        store(A if not SEPARATE else None, a, tile, 4)
        store(GATES, gates, tile, 4)
    layer.store_statistics(t.mean, t.spread, stats, base, own, 4, PER)
    if t.cell_mean is not None:
        layer.store_statistics(t.cell_mean, t.cell_spread, cell_stats, base, own, 1, 1)


@triton.jit(do_not_specialize=["START", "M", "each"])
def layer_norm_lstm_backward_kernel(
    t, START, M, N, each,
    PER: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else N
    dtype: tl.constexpr = t.mean.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    A, GATES, DINPUT = t.a + offset * 4, t.gates + offset * 4, t.dinput + offset * 4
    DA = shifted(t.da, offset * 4)
    RAW = shifted(t.raw_cells, offset)
    before = t.previous_cells + offset
    given = lstm.Given(
        t.dy + offset, t.dh, t.dc, GATES, t.cells + offset, RAW, before, A, t.cell_weight, t.cell_bias
    )  # fmt: skip
    first = tl.program_id(0) * each
    for block in range(first, tl.minimum(first + each, tl.cdiv(M, FORM.BLOCK_M))):
        base = layer.base(block, M, N, FORM.BLOCK_M, FORM.BLOCK_N)
        stats, cell_stats, cell_means = layer.load_statistics(t.mean, t.spread, base, START, 4, PER), None, None
        if t.cell_mean is not None:
            cell_stats = layer.load_statistics(t.cell_mean, t.cell_spread, base, START, 1, 1)
        tile = at(base, 0, 1)
        dn, cell_xhat, do = lstm.cell_grads(given, cell_stats, tile, dtype)
        if t.cell_mean is not None:
            sums = lstm.cell_sums(dn, cell_xhat, t.cell_weight, given, cell_stats, base, END, FORM, dtype)
            cell_means = means_of(sums[0], base, 1, 1, 1), means_of(sums[1], base, 1, 1, 1)
        dz, xhats, dc = lstm.lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, tile, dtype)
        sums = lstm.gate_sums(
            dz, xhats, t.weight, given, stats, cell_stats, cell_means, base, END, PER, FORM, dtype
        )  # fmt: skip
        means = means_of(sums[0], base, 4, PER, 1), means_of(sums[1], base, 4, PER, 1)
        for start in range(0, END, FORM.STEP):
            here = at(base, start, 1)
            if not FORM.ONE:
                dn, cell_xhat, do = lstm.cell_grads(given, cell_stats, here, dtype)
                dz, xhats, dc = lstm.lstm_grads(dn, cell_xhat, do, given, stats, cell_stats, cell_means, here, dtype)
            da = through_norm(times_parameter(dz, t.weight, here, 4), xhats, stats, means, 4)
            store(DINPUT, da if DA is None else dz, here, 4)
            store(DA, da, here, 4)
            store(t.dc, (dc,), here, 1)
            layer.add_to_lines(t.partial_w, t.partial_b, dz, xhats, here, 4)
            if t.cell_mean is not None:
                layer.add_to_lines(t.partial_cell_w, t.partial_cell_b, dn, cell_xhat, here, 1)


@on_device
def layer_norm_lstm_fwd(a):
    """i, f, g, o of LN(weight_hh h) + input, c = f c + i g, y = h = o tanh(LN(c)), step after step."""
    N, constants = a.h.shape[1], layer.form(a.a, a.h.shape[1], 4)
    t = forward_tensors(a, a.rstd, a.cell_rstd)
    for step in forward_steps(a):
        layer_norm_lstm_forward_kernel[(cdiv(step.n, constants["FORM"].BLOCK_M),)](
            t, step.start, step.own, step.n, N,
            EPS=a.eps, PER=a.groups[0], SEPARATE=a.separate, **constants,
        )  # fmt: skip


@on_device
def layer_norm_lstm_bwd(a):
    """dinput of the gates' sums, da through the norm (da None: as dinput), dh = weight_hh^T da, dc, backwards."""
    N, constants = a.dh.shape[1], layer.form(a.a, a.dh.shape[1], 4, most=4)
    gradients = a.dweight, a.dbias, a.dcell_weight, a.dcell_bias
    each, partials = layer.workspace(a.mean, len(a.dh), constants["FORM"].BLOCK_M, *gradients)
    t = backward_tensors(a, a.rstd, a.cell_rstd, partials)
    for step in backward_steps(a):
        layer_norm_lstm_backward_kernel[(cdiv(step.n, each * constants["FORM"].BLOCK_M),)](
            t, step.start, step.n, N, each, PER=a.groups[0], **constants
        )
    finalise(*partials[:2], a.dweight, a.dbias)
    finalise(*partials[2:], a.dcell_weight, a.dcell_bias)
