"""Recurrent: statistics and sums along the axis of a norm, and the gradient through it.

They are of groups of PER gates side by side, the last of which has what is left. A pass over several tiles takes their
values anew, one over a lone tile keeps them.
"""

import triton
import triton.language as tl

from normkernels._backends.triton.base.values import number
from normkernels._backends.triton.recurrent.tiles import at, summed


@triton.constexpr_function
def gates_beside(gate, G, PER):
    """How many gates the group of this one has."""
    return min(PER, G - gate // PER * PER)


@triton.jit
def no_sums(like, G: tl.constexpr, PER: tl.constexpr):
    found = ()
    for _ in tl.static_range(0, G, PER):
        found += (tl.zeros(like.shape, like.dtype),)
    return found


@triton.jit
def add_groups(sums, values, G: tl.constexpr, PER: tl.constexpr):
    found = ()
    for group in tl.static_range((G + PER - 1) // PER):
        total = sums[group]
        for gate in tl.static_range(G):
            if gate // PER == group:
                total += values[gate]
        found += (total,)
    return found


@triton.jit
def add_squares(sums, values, means, mask, G: tl.constexpr, PER: tl.constexpr):
    # of what is left beside the means
    found = ()
    for gate in tl.static_range(G):
        centred = tl.where(mask, values[gate] - means[gate], 0.0)
        found += (centred * centred,)
    return add_groups(sums, found, G, PER)


@triton.jit
def add_sums(sums, g, xhats, G: tl.constexpr, PER: tl.constexpr):
    # of g, and of g xhat
    products = ()
    for gate in tl.static_range(G):
        products += (g[gate] * xhats[gate],)
    return add_groups(sums[0], g, G, PER), add_groups(sums[1], products, G, PER)


@triton.jit
def means_of(sums, base, G: tl.constexpr, PER: tl.constexpr, AXIS: tl.constexpr):
    # for each gate that of its group
    _, _, M, N = base
    found = ()
    for gate in tl.static_range(G):
        if gate % PER == 0:
            mean = tl.sum(sums[gate // PER], axis=AXIS, keep_dims=True) / (
                gates_beside(gate, G, PER) * N if AXIS == 1 else M
            )
        found += (mean,)
    return found


@triton.jit
def statistics(
    X, A, base, END, G: tl.constexpr, PER: tl.constexpr, SEPARATE: tl.constexpr, FORM: tl.constexpr,
    dtype: tl.constexpr,
):  # fmt: skip
    # mean and variance, for each gate those of its group
    AXIS: tl.constexpr = FORM.AXIS
    a = summed(X, A, at(base, 0, AXIS), G, SEPARATE, dtype)
    totals, squares = no_sums(a[0], G, PER), no_sums(a[0], G, PER)
    for start in range(0, END, FORM.STEP):
        if not FORM.ONE:
            a = summed(X, A, at(base, start, AXIS), G, SEPARATE, dtype)
        totals = add_groups(totals, a, G, PER)
    means = means_of(totals, base, G, PER, AXIS)
    for start in range(0, END, FORM.STEP):
        tile = at(base, start, AXIS)
        if not FORM.ONE:
            a = summed(X, A, tile, G, SEPARATE, dtype)
        squares = add_squares(squares, a, means, tile[2], G, PER)
    return means, means_of(squares, base, G, PER, AXIS)


@triton.jit
def with_rstd(means, variances, EPS, G: tl.constexpr):
    found = ()
    for gate in tl.static_range(G):
        found += ((means[gate], tl.rsqrt(variances[gate] + number(EPS, variances[gate].dtype))),)
    return found


@triton.jit
def through_norm(g, xhats, stats, means, G: tl.constexpr):
    # da of xhat = (a - mean) rstd; means: of g and of g xhat, None where mean and rstd are constants
    found = ()
    for gate in tl.static_range(G):
        da = g[gate]
        if means is not None:
            da = da - means[0][gate] - xhats[gate] * means[1][gate]
        found += (da * stats[gate][1],)
    return found
