"""The GRU with layer norm: for each step a product and one kernel (Ba et al. 2016, arXiv:1607.06450)."""

import triton
import triton.language as tl

from normkernels.backends.triton.base.activations import sigmoid, tanh
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
from normkernels.backends.triton.recurrent.tiles import (
    at,
    load,
    normed,
    plus_parameter,
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
    X, A, W, B, H, Y, MEAN, RSTD, GATES,  # as in the schema
    START, OWN, M, N,  # a step's M rows: from row START of a sequence, from row OWN of what may be kept of one step
    EPS: tl.float64, PER: tl.constexpr, SEPARATE: tl.constexpr,
    ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_N if ONE else N
    dtype: tl.constexpr = MEAN.dtype.element_ty
    first, own = tl.cast(START, tl.int64), tl.cast(OWN, tl.int64)
    X, Y, A, GATES = X + first * (3 * N), Y + first * N, A + own * (3 * N), GATES + own * (3 * N)
    base = rows_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    moments = statistics(X, A, base, END, 3, PER, SEPARATE, ONE, BLOCK_N, 1, dtype)
    stats = with_rstd(*moments, EPS, 3)
    for start in range(0, END, BLOCK_N):
        tile = at(base, start, 1)
        a = summed(X, A, tile, 3, SEPARATE, dtype)
        r, z, n = gru_gates(normed(a, stats, W, B, tile, 3), X, tile, SEPARATE)
        h = (n + z * (load(H, tile, 1, dtype)[0] - n),)
        store(A if not SEPARATE else None, a, tile, 3)
        store(GATES, (r, z, n), tile, 3)
        store(H, h, tile, 1)
        store(Y, h, tile, 1)
    store_statistics(MEAN, RSTD, stats, base, own, 3, PER)


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
    DY, GATES, PREVIOUS, A, MEAN, RSTD, W, B, DH, DINPUT, DA,  # as in the schema
    PARTIAL_W, PARTIAL_B, START, M, N, each,  # partials: (lines, 3 N)
    PER: tl.constexpr, ALIGN: tl.constexpr, ONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = N // ALIGN * ALIGN
    END = BLOCK_N if ONE else N
    dtype: tl.constexpr = MEAN.dtype.element_ty
    offset = tl.cast(START, tl.int64) * N
    DY, PREVIOUS, A, GATES, DINPUT = (
        DY + offset, PREVIOUS + offset, A + offset * 3, GATES + offset * 3, DINPUT + offset * 3
    )  # fmt: skip
    if DA is not None:
        DA = DA + offset * 3
    first = tl.program_id(0) * each
    for block in range(first, tl.minimum(first + each, tl.cdiv(M, BLOCK_M))):
        base = rows_of(block, M, N, BLOCK_M, BLOCK_N)
        stats = load_statistics(MEAN, RSTD, base, START, 3, PER)
        dq, dn, xhats, direct = gru_grads(DY, DH, GATES, PREVIOUS, A, W, B, stats, at(base, 0, 1), dtype)
        sums = no_sums(dn, 3, PER), no_sums(dn, 3, PER)
        for start in range(0, END, BLOCK_N):
            tile = at(base, start, 1)
            if not ONE:
                dq, dn, xhats, direct = gru_grads(DY, DH, GATES, PREVIOUS, A, W, B, stats, tile, dtype)
            sums = add_sums(sums, times_parameter(dq, W, tile, 3), xhats, 3, PER)
        means = means_of(sums[0], base, 3, PER, 1), means_of(sums[1], base, 3, PER, 1)
        for start in range(0, END, BLOCK_N):
            tile = at(base, start, 1)
            if not ONE:
                dq, dn, xhats, direct = gru_grads(DY, DH, GATES, PREVIOUS, A, W, B, stats, tile, dtype)
            da = through_norm(times_parameter(dq, W, tile, 3), xhats, stats, means, 3)
            store(DINPUT, da if DA is None else (dq[0], dq[1], dn), tile, 3)
            store(DA, da, tile, 3)
            store(DH, (direct,), tile, 1)
            add_to_lines(PARTIAL_W, PARTIAL_B, dq, xhats, tile, 3)


@on_device
def layer_norm_gru_fwd(
    input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, gates, groups, separate, eps, reverse
):
    """q = LN(weight_hh h), r, z = sigmoid(input + q), n = tanh(input + r q), y = h = n + z (h - n), step after step."""
    N, sizes = h.shape[1], row_sizes(a, h.shape[1], 3)
    for step in forward_steps(h, weight_hh, a, y, batch_sizes, reverse):
        layer_norm_gru_forward_kernel[(cdiv(step.n, sizes["BLOCK_M"]),)](
            input, a, weight, bias, h, y, mean, rstd, gates, step.start, step.own, step.n, N,
            EPS=eps, PER=groups[0], SEPARATE=separate, **sizes,
        )  # fmt: skip


@on_device
def layer_norm_gru_bwd(
    dy, gates, previous, a, mean, rstd, weight_hh, weight, bias, batch_sizes, dh, dinput, da, dweight, dbias, groups,
    reverse,
):  # fmt: skip
    """dinput of the gates' sums, da through the norm (da None: as dinput), dh = dh z + weight_hh^T da, backwards."""
    N, sizes = dh.shape[1], row_sizes(a, dh.shape[1], 3)
    each, partials = workspace(mean, len(dh), sizes["BLOCK_M"], dweight, dbias)
    for step in backward_steps(dh, weight_hh, dinput if da is None else da, batch_sizes, reverse, add=True):
        layer_norm_gru_backward_kernel[(cdiv(step.n, each * sizes["BLOCK_M"]),)](
            dy, gates, previous, a, mean, rstd, weight, bias, dh, dinput, da, *partials, step.start, step.n, N, each,
            PER=groups[0], **sizes,
        )  # fmt: skip
    finalise(*partials, dweight, dbias)
