"""Every activation in 50 digits."""

from mpmath import erf, exp, log1p, mp, mpf, sqrt, tanh

mp.dps = 50


def clamp(u, low, high):
    return min(max(u, mpf(low)), mpf(high))


def sigmoid(u):
    return 1 / (1 + exp(-u))


def elu(u):
    return u if u > 0 else exp(u) - 1


SELU_SCALE = mpf("1.0507009873554804934193349852946")
SELU_ALPHA = mpf("1.6732632423543772848170429916717")
ACTIVATIONS = {
    "identity": lambda u: u,
    "relu": lambda u: max(u, mpf(0)),
    "relu6": lambda u: clamp(u, 0, 6),
    "leaky_relu": lambda u: u if u > 0 else mpf(0.25) * u,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "elu": elu,
    "selu": lambda u: SELU_SCALE * (u if u > 0 else SELU_ALPHA * (exp(u) - 1)),
    "gelu": lambda u: u * (1 + erf(u / sqrt(mpf(2)))) / 2,
    "gelu_tanh": lambda u: u * (1 + tanh(sqrt(2 / mp.pi) * (u + mpf("0.044715") * u**3))) / 2,
    "silu": lambda u: u * sigmoid(u),
    "softplus": lambda u: u if u > 20 else log1p(exp(u)),
    "hardtanh": lambda u: clamp(u, -1, 1),
    "hardsigmoid": lambda u: clamp(u / 6 + mpf(1) / 2, 0, 1),
    "hardswish": lambda u: u * clamp(u + 3, 0, 6) / 6,
    "mish": lambda u: u * tanh(log1p(exp(u))),
    "softsign": lambda u: u / (1 + abs(u)),
}
