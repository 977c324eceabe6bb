"""Activations and their derivatives on a tile; the names, formulas and kinks of the reference. NaN stays NaN."""

import math

import triton
import triton.language as tl

from normkernels._backends.triton.base.values import number

SQRT_HALF = tl.constexpr(math.sqrt(0.5))
DENSITY_0 = tl.constexpr(1 / math.sqrt(2 * math.pi))  # of N(0, 1) at 0
GELU_SCALE, GELU_CUBIC = tl.constexpr(math.sqrt(2 / math.pi)), tl.constexpr(0.044715)
SELU_SCALE, SELU_ALPHA = tl.constexpr(1.0507009873554805), tl.constexpr(1.6732632423543772)


@triton.jit
def clamp(u, LOW: tl.constexpr, HIGH: tl.constexpr):
    return tl.where(u < LOW, LOW, tl.where(u > HIGH, HIGH, u))


@triton.jit
def sigmoid(u):
    # 1 / (1 + e^-u), from e^-|u| so that nothing overflows
    e = tl.exp(-tl.abs(u))
    return tl.where(u < 0, e, 1.0) / (1 + e)


@triton.jit
def expm1(u):
    # e^u - 1 for u <= 0: near 0 the series u (1 + u/2 (1 + u/3 (...))), which does not cancel
    near = tl.maximum(u, -0.5)
    TERMS: tl.constexpr = 15 if u.dtype == tl.float64 else 9
    series = tl.full(u.shape, 1.0, u.dtype)
    for i in tl.static_range(TERMS - 1):
        series = 1.0 + near * series * (1.0 / (TERMS - i))
    return tl.where(u > -0.5, near * series, tl.exp(u) - 1)


@triton.jit
def tanh(u):
    # |tanh u| = -t / (t + 2), t = expm1(-2 |u|)
    t = expm1(-2 * tl.abs(u))
    t = t / (t + 2)
    return tl.where(u < 0, t, -t)


@triton.jit
def softplus(u):
    # log(1 + e^u) = max(u, 0) + log(1 + e), e = e^-|u|; log(1 + e) = 2 atanh(s), s = e / (2 + e) <= 1/3
    e = tl.exp(-tl.abs(u))
    s = e / (2 + e)
    TERMS: tl.constexpr = 17 if u.dtype == tl.float64 else 8
    series = tl.zeros(u.shape, u.dtype)
    for i in tl.static_range(TERMS):
        series = series * s * s + 1.0 / (2 * (TERMS - i) - 1)
    return tl.where(u > 20, u, tl.where(u < 0, 0.0, u) + 2 * s * series)


@triton.jit
def activation(u, NAME: tl.constexpr, SLOPE):
    """f(u). SLOPE is leaky_relu's."""
    if NAME == "identity":
        f = u
    elif NAME == "relu":
        f = tl.where(u < 0, 0.0, u)
    elif NAME == "leaky_relu":
        f = tl.where(u > 0, u, u * number(SLOPE, u.dtype))
    elif NAME == "relu6":
        f = clamp(u, 0.0, 6.0)
    elif NAME == "tanh":
        f = tanh(u)
    elif NAME == "sigmoid":
        f = sigmoid(u)
    elif NAME == "elu":
        f = tl.where(u > 0, u, expm1(tl.where(u > 0, 0.0, u)))
    elif NAME == "selu":
        f = tl.where(u > 0, u, expm1(tl.where(u > 0, 0.0, u)) * SELU_ALPHA) * SELU_SCALE
    elif NAME == "gelu":
        f = 0.5 * u * (1 + tl.erf(u * SQRT_HALF))
    elif NAME == "gelu_tanh":
        f = u * sigmoid((u + u * u * u * GELU_CUBIC) * (2 * GELU_SCALE))  # (1 + tanh z) / 2 = sigmoid(2 z)
    elif NAME == "silu":
        f = u * sigmoid(u)
    elif NAME == "softplus":
        f = softplus(u)
    elif NAME == "hardtanh":
        f = clamp(u, -1.0, 1.0)
    elif NAME == "hardsigmoid":
        f = clamp(u + 3, 0.0, 6.0) / 6
    elif NAME == "hardswish":
        f = u * clamp(u + 3, 0.0, 6.0) / 6
    elif NAME == "mish":
        n = tl.exp(clamp(u, -1e4, 40.0))  # tanh(log(1 + n)) = q / (q + 2), q = n (n + 2)
        f = u * (n * (n + 2) / (n * (n + 2) + 2))
    else:
        tl.static_assert(NAME == "softsign", "unknown activation")
        f = u / (1 + tl.abs(u))
    return f


@triton.jit
def derivative(u, NAME: tl.constexpr, SLOPE):
    """f'(u), with torch's choice at the kinks."""
    if NAME == "identity":
        d = tl.full(u.shape, 1.0, u.dtype)
    elif NAME == "relu":
        d = tl.where(u > 0, 1.0, tl.zeros(u.shape, u.dtype))
    elif NAME == "leaky_relu":
        d = tl.where(u > 0, 1.0, tl.full(u.shape, SLOPE, u.dtype))
    elif NAME == "relu6":
        d = tl.where((u > 0) & (u < 6), 1.0, tl.zeros(u.shape, u.dtype))
    elif NAME == "tanh":
        e = tl.exp(-2 * tl.abs(u))  # 1 - tanh^2 = 4 e / (1 + e)^2
        d = 4 * e / ((1 + e) * (1 + e))
    elif NAME == "sigmoid":
        d = sigmoid(u) * sigmoid(-u)
    elif NAME == "elu":
        d = tl.where(u > 0, 1.0, tl.exp(tl.where(u > 0, 0.0, u)))
    elif NAME == "selu":
        d = tl.where(u > 0, 1.0, tl.exp(tl.where(u > 0, 0.0, u)) * SELU_ALPHA) * SELU_SCALE
    elif NAME == "gelu":
        d = 0.5 * (1 + tl.erf(u * SQRT_HALF)) + u * tl.exp(-0.5 * u * u) * DENSITY_0
    elif NAME == "gelu_tanh":
        z = (u + u * u * u * GELU_CUBIC) * (2 * GELU_SCALE)  # (u s(z))' = s + u s (1 - s) z'
        s = sigmoid(z)
        d = s + u * s * sigmoid(-z) * (1 + u * u * (3 * GELU_CUBIC)) * (2 * GELU_SCALE)
    elif NAME == "silu":
        d = sigmoid(u) * (1 + u * sigmoid(-u))
    elif NAME == "softplus":
        d = tl.where(u > 20, 1.0, sigmoid(u))
    elif NAME == "hardtanh":
        d = tl.where((u > -1) & (u < 1), 1.0, tl.zeros(u.shape, u.dtype))
    elif NAME == "hardsigmoid":
        d = tl.where((u > -3) & (u < 3), 1.0 / 6, tl.zeros(u.shape, u.dtype))
    elif NAME == "hardswish":
        d = tl.where(u > 3, 1.0, tl.where(u >= -3, u / 3 + 0.5, 0.0))
    elif NAME == "mish":
        n = tl.exp(clamp(u, -1e4, 40.0))  # q as above, q + 1 = (1 + n)^2: f' = q / (q + 2) + u 4 n (1 + n) / (q + 2)^2
        q = n * (n + 2)
        d = q / (q + 2) + u * (4 * n * (1 + n) / (q + 2) / (q + 2))
    else:
        tl.static_assert(NAME == "softsign", "unknown activation")
        d = 1 / ((1 + tl.abs(u)) * (1 + tl.abs(u)))
    return d
