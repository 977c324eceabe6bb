"""The RNN with batch norm: for each step a product and one kernel (Laurent et al. 2016, arXiv:1510.01378)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.recurrent import batch
from normkernels._backends.triton.recurrent.norm import add_sums, no_sums, statistics, through_norm, with_rstd
from normkernels._backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels._backends.triton.recurrent.tensors import RNNBackward, RNNForward
from normkernels._backends.triton.recurrent.tiles import at, rnn_grads, rnn_step, shifted, store, times_parameter


@triton.jit(do_not_specialize=["T", "START", "OWN", "M"])
def batch_norm_rnn_forward_kernel(
    t, T, START, OWN, M, N,  # M rows of step T: from row START of a sequence, row OWN of what may be kept of one step
    EPS: tl.float64, TRAINING: tl.constexpr, SEPARATE: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else M
    dtype: tl.constexpr = t.mean.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, Y, A = t.input + first * N, t.y + first * N, t.a + own * N
    base = batch.base(tl.program_id(0), M, N, FORM.BLOCK_M, FORM.BLOCK_N)
    if TRAINING:
        moments = statistics(X, A, base, END, 1, 1, SEPARATE, FORM, dtype)
    else:
        moments = batch.load_line(t.mean, T, base, 1), batch.load_line(t.spread, T, base, 1)
    stats = with_rstd(*moments, EPS, 1)
    for start in range(0, END, FORM.STEP):
        rnn_step(t, X, A, Y, stats, at(base, start, 0), SEPARATE, ACT, dtype)
    batch.store_line(t.mean if TRAINING else None, T, moments[0], base, 1)
    batch.store_line(t.spread if TRAINING else None, T, moments[1], base, 1)


@triton.jit(do_not_specialize=["T", "START", "M"])
def batch_norm_rnn_backward_kernel(
    t, T, START, M, N,
    EPS: tl.float64, TRAINING: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else M
    dtype: tl.constexpr = t.mean.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    DY, Y, A, DINPUT = t.dy + offset, t.y + offset, t.a + offset, t.dinput + offset
    DA = shifted(t.da, offset)
    base = batch.base(tl.program_id(0), M, N, FORM.BLOCK_M, FORM.BLOCK_N)
    stats = with_rstd(batch.load_line(t.mean, T, base, 1), batch.load_line(t.spread, T, base, 1), EPS, 1)
    dz, xhat = rnn_grads(DY, Y, t.dh, A, stats, at(base, 0, 0), ACT, dtype)
    sums = no_sums(dz[0], 1, 1), no_sums(dz[0], 1, 1)
    for start in range(0, END, FORM.STEP):
        if not FORM.ONE:
            dz, xhat = rnn_grads(DY, Y, t.dh, A, stats, at(base, start, 0), ACT, dtype)
        sums = add_sums(sums, dz, xhat, 1, 1)
    means = batch.means_from(sums, t.weight, base, 1, TRAINING)
    batch.store_sums(t.partial_w, t.partial_b, T, sums, base, 1)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, 0)
        if not FORM.ONE:
            dz, xhat = rnn_grads(DY, Y, t.dh, A, stats, tile, ACT, dtype)
        da = through_norm(times_parameter(dz, t.weight, tile, 1), xhat, stats, means, 1)
        store(DINPUT, da if DA is None else dz, tile, 1)
        store(DA, da, tile, 1)


@on_device
def batch_norm_rnn_fwd(a):
    """y = h = f(BN_t(weight_hh h) + input) step after step, or f(BN_t(weight_hh h + input))."""
    N, constants = a.h.shape[1], batch.form(a.a, *a.h.shape)
    t = RNNForward(a.input, a.a, a.weight, a.bias, a.h, a.y, a.mean, a.var)
    for step in forward_steps(a):
        batch_norm_rnn_forward_kernel[(cdiv(N, constants["FORM"].BLOCK_N),)](
            t, step.t, step.start, step.own, step.n, N,
            EPS=a.eps, TRAINING=a.training, SEPARATE=a.separate, ACT=a.nonlinearity, **constants,
        )  # fmt: skip


@on_device
def batch_norm_rnn_bwd(a):
    """dinput = dy f'(y), da through the norm (da None: as dinput), dh = weight_hh^T da, backwards."""
    N, constants = a.dh.shape[1], batch.form(a.a, *a.dh.shape)
    partials = batch.workspace(a.mean, a.dweight, a.dbias)
    t = RNNBackward(a.dy, a.y, a.a, a.mean, a.var, a.weight, a.dh, a.dinput, a.da, *partials)
    for step in backward_steps(a):
        batch_norm_rnn_backward_kernel[(cdiv(N, constants["FORM"].BLOCK_N),)](
            t, step.t, step.start, step.n, N, EPS=a.eps, TRAINING=a.training, ACT=a.nonlinearity, **constants
        )
    finalise(*partials, a.dweight, a.dbias)
