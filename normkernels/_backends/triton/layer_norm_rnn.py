"""The RNN with layer norm: for each step a product and one kernel (Ba et al. 2016, arXiv:1607.06450)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.recurrent import layer
from normkernels._backends.triton.recurrent.norm import add_sums, means_of, no_sums, statistics, through_norm, with_rstd
from normkernels._backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels._backends.triton.recurrent.tensors import RNNBackward, RNNForward
from normkernels._backends.triton.recurrent.tiles import at, rnn_grads, rnn_step, shifted, store, times_parameter


@triton.jit(do_not_specialize=["START", "OWN", "M"])
def layer_norm_rnn_forward_kernel(
    t, START, OWN, M, N,  # a step's M rows: from row START of a sequence, from row OWN of what may be kept of one step
    EPS: tl.float64, SEPARATE: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else N
    dtype: tl.constexpr = t.mean.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, Y, A = t.input + first * N, t.y + first * N, t.a + own * N
    base = layer.base(tl.program_id(0), M, N, FORM.BLOCK_M, FORM.BLOCK_N)
    moments = statistics(X, A, base, END, 1, 1, SEPARATE, FORM, dtype)
    stats = with_rstd(*moments, EPS, 1)
    for start in range(0, END, FORM.STEP):
        rnn_step(t, X, A, Y, stats, at(base, start, 1), SEPARATE, ACT, dtype)
    layer.store_statistics(t.mean, t.spread, stats, base, own, 1, 1)


@triton.jit(do_not_specialize=["START", "M", "each"])
def layer_norm_rnn_backward_kernel(
    t, START, M, N, each,
    ACT: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else N
    dtype: tl.constexpr = t.mean.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    DY, Y, A, DINPUT = t.dy + offset, t.y + offset, t.a + offset, t.dinput + offset
    DA = shifted(t.da, offset)
    first = tl.program_id(0) * each
    for block in range(first, tl.minimum(first + each, tl.cdiv(M, FORM.BLOCK_M))):
        base = layer.base(block, M, N, FORM.BLOCK_M, FORM.BLOCK_N)
        stats = layer.load_statistics(t.mean, t.spread, base, START, 1, 1)
        dz, xhat = rnn_grads(DY, Y, t.dh, A, stats, at(base, 0, 1), ACT, dtype)
        sums = no_sums(dz[0], 1, 1), no_sums(dz[0], 1, 1)
        for start in range(0, END, FORM.STEP):
            tile = at(base, start, 1)
            if not FORM.ONE:
                dz, xhat = rnn_grads(DY, Y, t.dh, A, stats, tile, ACT, dtype)
            sums = add_sums(sums, times_parameter(dz, t.weight, tile, 1), xhat, 1, 1)
        means = means_of(sums[0], base, 1, 1, 1), means_of(sums[1], base, 1, 1, 1)
        for start in range(0, END, FORM.STEP):
            tile = at(base, start, 1)
            if not FORM.ONE:
                dz, xhat = rnn_grads(DY, Y, t.dh, A, stats, tile, ACT, dtype)
            da = through_norm(times_parameter(dz, t.weight, tile, 1), xhat, stats, means, 1)
            store(DINPUT, da if DA is None else dz, tile, 1)
            store(DA, da, tile, 1)
            layer.add_to_lines(t.partial_w, t.partial_b, dz, xhat, tile, 1)


@on_device
def layer_norm_rnn_fwd(a):
    """y = h = f(LN(weight_hh h) + input) step after step, or f(LN(weight_hh h + input))."""
    N, constants = a.h.shape[1], layer.form(a.a, a.h.shape[1], 1)
    t = RNNForward(a.input, a.a, a.weight, a.bias, a.h, a.y, a.mean, a.rstd)
    for step in forward_steps(a):
        layer_norm_rnn_forward_kernel[(cdiv(step.n, constants["FORM"].BLOCK_M),)](
            t, step.start, step.own, step.n, N, EPS=a.eps, SEPARATE=a.separate, ACT=a.nonlinearity, **constants
        )


@on_device
def layer_norm_rnn_bwd(a):
    """dinput = dy f'(y), da through the norm (da None: as dinput), dh = weight_hh^T da, backwards."""
    N, constants = a.dh.shape[1], layer.form(a.a, a.dh.shape[1], 1)
    each, partials = layer.workspace(a.mean, len(a.dh), constants["FORM"].BLOCK_M, a.dweight, a.dbias)
    t = RNNBackward(a.dy, a.y, a.a, a.mean, a.rstd, a.weight, a.dh, a.dinput, a.da, *partials)
    for step in backward_steps(a):
        layer_norm_rnn_backward_kernel[(cdiv(step.n, each * constants["FORM"].BLOCK_M),)](
            t, step.start, step.n, N, each, ACT=a.nonlinearity, **constants
        )
    finalise(*partials, a.dweight, a.dbias)
