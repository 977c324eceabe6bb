"""The GRU with layer norm: for each step a product and one kernel (Ba et al. 2016, arXiv:1607.06450)."""

import triton
import triton.language as tl

from normkernels._backends.triton.base.activations import sigmoid, tanh
from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.base.numbers import cdiv
from normkernels._backends.triton.base.sums import finalise
from normkernels._backends.triton.recurrent import layer
from normkernels._backends.triton.recurrent.norm import add_sums, means_of, no_sums, statistics, through_norm, with_rstd
from normkernels._backends.triton.recurrent.steps import backward_steps, forward_steps
from normkernels._backends.triton.recurrent.tensors import GRUBackward, GRUForward
from normkernels._backends.triton.recurrent.tiles import (
    at,
    load,
    normed,
    plus_parameter,
    shifted,
    standardised,
    store,
    summed,
    times_parameter,
)


@triton.jit
def gru_gates(q, X, tile, SEPARATE: tl.constexpr):
    # r, z, n; the input's term of n stands outside r q
    q_r, q_z, q_n = q
    if SEPARATE:
        x_r, x_z, x_n = load(X, tile, 3, q_r.dtype)
        r = sigmoid(q_r + x_r)
        q_z, q_n = q_z + x_z, r * q_n + x_n
    else:
        r = sigmoid(q_r)
        q_n = r * q_n
    return r, sigmoid(q_z), tanh(q_n)


@triton.jit(do_not_specialize=["START", "OWN", "M"])
def layer_norm_gru_forward_kernel(
    t, START, OWN, M, N,  # a step's M rows: from row START of a sequence, from row OWN of what may be kept of one step
    EPS: tl.float64, PER: tl.constexpr, SEPARATE: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else N
    dtype: tl.constexpr = t.mean.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, Y, A, GATES = t.input + first * (3 * N), t.y + first * N, t.a + own * (3 * N), t.gates + own * (3 * N)
    base = layer.base(tl.program_id(0), M, N, FORM.BLOCK_M, FORM.BLOCK_N)
    moments = statistics(X, A, base, END, 3, PER, SEPARATE, FORM, dtype)
    stats = with_rstd(*moments, EPS, 3)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, 1)
        a = summed(X, A, tile, 3, SEPARATE, dtype)
        r, z, n = gru_gates(normed(a, stats, t.weight, t.bias, tile, 3), X, tile, SEPARATE)
        h = (n + z * (load(t.h, tile, 1, dtype)[0] - n),)
        store(A if not SEPARATE else None, a, tile, 3)
        store(GATES, (r, z, n), tile, 3)
        store(t.h, h, tile, 1)
        store(Y, h, tile, 1)
    layer.store_statistics(t.mean, t.rstd, stats, base, own, 3, PER)


@triton.jit
def gru_grads(DY, DH, GATES, PREVIOUS, A, W, B, stats, tile, dtype: tl.constexpr):
    # dq, what differs from it in dinput, xhat, and what h before gets past the gates
    r, z, n = load(GATES, tile, 3, dtype)
    dh = load(DY, tile, 1, dtype)[0] + load(DH, tile, 1, dtype)[0]
    xhats = standardised(load(A, tile, 3, dtype), stats, 3)
    q_n = plus_parameter(times_parameter(xhats, W, tile, 3), B, tile, 3)[2]
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * q_n * r * (1 - r), dh * (load(PREVIOUS, tile, 1, dtype)[0] - n) * z * (1 - z)
    return (dr, dz, dn * r), dn, xhats, dh * z


@triton.jit(do_not_specialize=["START", "M", "each"])
def layer_norm_gru_backward_kernel(
    t, START, M, N, each,
    PER: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    N = N // FORM.ALIGN * FORM.ALIGN
    END = FORM.STEP if FORM.ONE else N
    dtype: tl.constexpr = t.mean.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    DY, PREVIOUS, A, GATES, DINPUT = (
        t.dy + offset, t.previous + offset, t.a + offset * 3, t.gates + offset * 3, t.dinput + offset * 3
    )  # fmt: skip
    DA = shifted(t.da, offset * 3)
    first = tl.program_id(0) * each
    for block in range(first, tl.minimum(first + each, tl.cdiv(M, FORM.BLOCK_M))):
        base = layer.base(block, M, N, FORM.BLOCK_M, FORM.BLOCK_N)
        stats = layer.load_statistics(t.mean, t.rstd, base, START, 3, PER)
        dq, dn, xhats, direct = gru_grads(DY, t.dh, GATES, PREVIOUS, A, t.weight, t.bias, stats, at(base, 0, 1), dtype)
        sums = no_sums(dn, 3, PER), no_sums(dn, 3, PER)
        for start in range(0, END, FORM.STEP):
            tile = at(base, start, 1)
            if not FORM.ONE:
                dq, dn, xhats, direct = gru_grads(DY, t.dh, GATES, PREVIOUS, A, t.weight, t.bias, stats, tile, dtype)
            sums = add_sums(sums, times_parameter(dq, t.weight, tile, 3), xhats, 3, PER)
        means = means_of(sums[0], base, 3, PER, 1), means_of(sums[1], base, 3, PER, 1)
        for start in range(0, END, FORM.STEP):
            tile = at(base, start, 1)
            if not FORM.ONE:
                dq, dn, xhats, direct = gru_grads(DY, t.dh, GATES, PREVIOUS, A, t.weight, t.bias, stats, tile, dtype)
            da = through_norm(times_parameter(dq, t.weight, tile, 3), xhats, stats, means, 3)
            store(DINPUT, da if DA is None else (dq[0], dq[1], dn), tile, 3)
            store(DA, da, tile, 3)
            store(t.dh, (direct,), tile, 1)
            layer.add_to_lines(t.partial_w, t.partial_b, dq, xhats, tile, 3)


@on_device
def layer_norm_gru_fwd(a):
    """q = LN(weight_hh h), r, z = sigmoid(input + q), n = tanh(input + r q), y = h = n + z (h - n), step after step."""
    N, constants = a.h.shape[1], layer.form(a.a, a.h.shape[1], 3)
    t = GRUForward(a.input, a.a, a.weight, a.bias, a.h, a.y, a.mean, a.rstd, a.gates)
    for step in forward_steps(a):
        layer_norm_gru_forward_kernel[(cdiv(step.n, constants["FORM"].BLOCK_M),)](
            t, step.start, step.own, step.n, N, EPS=a.eps, PER=a.groups[0], SEPARATE=a.separate, **constants
        )


@on_device
def layer_norm_gru_bwd(a):
    """dinput of the gates' sums, da through the norm (da None: as dinput), dh = dh z + weight_hh^T da, backwards."""
    N, constants = a.dh.shape[1], layer.form(a.a, a.dh.shape[1], 3)
    each, partials = layer.workspace(a.mean, len(a.dh), constants["FORM"].BLOCK_M, a.dweight, a.dbias)
    given = a.dy, a.gates, a.previous, a.a, a.mean, a.rstd, a.weight, a.bias
    t = GRUBackward(*given, a.dh, a.dinput, a.da, *partials)
    for step in backward_steps(a, add=True):
        layer_norm_gru_backward_kernel[(cdiv(step.n, each * constants["FORM"].BLOCK_M),)](
            t, step.start, step.n, N, each, PER=a.groups[0], **constants
        )
    finalise(*partials, a.dweight, a.dbias)
