"""Write the golden files: values and gradients in 50 digits with mpmath alone, no torch, gradients by differences.

python tests/golden/make.py
"""

import json
import random
from pathlib import Path

from mpmath import diff, erf, exp, log1p, mp, mpf, sqrt, tanh

mp.dps = 50
HERE = Path(__file__).parent
CHANNELS = 4  # and columns of a row


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


def layer_norm(s, weight, bias, call):
    mean = sum(s) / len(s)
    variance = sum((v - mean) ** 2 for v in s) / len(s)
    xhat = [(v - mean) / sqrt(variance + call["eps"]) for v in s]
    weight = weight or [1 - call["weight_offset"]] * len(s)
    return [h * (w + call["weight_offset"]) + b for h, w, b in zip(xhat, weight, bias or [0] * len(s), strict=True)]


def rms_norm(s, weight, bias, call):
    xhat = [v / sqrt(sum(v**2 for v in s) / len(s) + call["eps"]) for v in s]
    weight = weight or [1 - call["weight_offset"]] * len(s)
    return [h * (w + call["weight_offset"]) for h, w in zip(xhat, weight, strict=True)]


def by_row(norm):
    """(y, s) of every row."""

    def outputs(tensors, call):
        x = tensors["input"]
        s = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(x, tensors.get("residual", x), strict=True)]
        s = s if "residual" in tensors else x
        act = ACTIVATIONS[call["activation"]]
        return [[act(u) for u in norm(row, tensors.get("weight"), tensors.get("bias"), call)] for row in s], s

    return outputs


def by_channel(statistic):
    """(y,) where each row is one channel of one image, and those of one ``statistic(image, channel)`` share it."""

    def outputs(tensors, call):
        x, act = tensors["input"], ACTIVATIONS[call["activation"]]
        keys = [statistic(i // CHANNELS, i % CHANNELS) for i in range(len(x))]
        pools = {key: [v for k, row in zip(keys, x, strict=True) if k == key for v in row] for key in keys}
        means = {key: sum(pool) / len(pool) for key, pool in pools.items()}
        variances = {key: sum((v - means[key]) ** 2 for v in pool) / len(pool) for key, pool in pools.items()}
        y = []
        for i, (key, row) in enumerate(zip(keys, x, strict=True)):
            w, b = (tensors[k][i % CHANNELS] if k in tensors else mpf(k == "weight") for k in ("weight", "bias"))
            xhat = [(v - means[key]) / sqrt(variances[key] + call["eps"]) for v in row]
            skip = tensors["skip"][i] if "skip" in tensors else [0] * len(row)
            y.append([act(h * w + b + s) for h, s in zip(xhat, skip, strict=True)])
        return (y,)

    return outputs


def loss(outputs, tensors, call, cotangents):
    """The scalar whose gradients are those that the cotangents ask for."""
    pairs = zip(outputs(tensors, call), cotangents, strict=False)
    return sum(
        a * b for y, dy in pairs for row, drow in zip(y, dy, strict=True) for a, b in zip(row, drow, strict=True)
    )


def gradient(outputs, tensors, call, cotangents, name):
    """d loss / d tensors[name], one element after the other."""
    value = tensors[name]
    nested = isinstance(value[0], list)
    rows = value if nested else [value]

    def of(i, j):
        def changed(v):
            new = [[v if (a, b) == (i, j) else rows[a][b] for b in range(len(rows[a]))] for a in range(len(rows))]
            return loss(outputs, tensors | {name: new if nested else new[0]}, call, cotangents)

        return diff(changed, rows[i][j])

    grads = [[of(i, j) for j in range(len(rows[i]))] for i in range(len(rows))]
    return grads if nested else grads[0]


def case(outputs, shape, optional, seed, **call):
    """One golden case; inputs are multiples of 1/64, so exact in float64."""
    draw, (rows, columns) = random.Random(seed), shape

    def numbers(n):
        return [mpf(draw.randint(-192, 192)) / 64 for _ in range(n)]

    kinds = [(1, 0), (1, 30), (mpf(1) / 64, 0)]
    tensors = {"input": [[v * scale + shift for v in numbers(columns)] for scale, shift in (kinds * rows)[:rows]]}
    like_input = ("residual", "skip")
    tensors |= {k: [numbers(columns) for _ in range(rows)] if k in like_input else numbers(CHANNELS) for k in optional}
    cotangents = [[numbers(columns) for _ in range(rows)] for _ in range(1 + ("residual" in optional))]
    want = {f"output {i}": y for i, y in enumerate(outputs(tensors, call)[: len(cotangents)])}
    want |= {f"grad {k}": gradient(outputs, tensors, call, cotangents, k) for k in tensors}
    call |= {"slope": 0.25} if call["activation"] == "leaky_relu" else {}
    return {"call": call, "tensors": tensors, "cotangents": cotangents, "want": want}


def write(stem, cases):
    text = json.dumps(cases, default=lambda v: float(v), indent=None).replace('{"call"', '\n{"call"')
    (HERE / f"{stem}.json").write_text(text + "\n")


def rows(norm, parameters):
    """Cases of 3 rows of 4 columns."""
    defaults = {"eps": 2.0**-16, "weight_offset": 0.0, "activation": "identity"}

    def make(optional, seed, **call):
        return case(by_row(norm), (3, CHANNELS), optional, seed, **(defaults | call))

    cases = [make(parameters, i, activation=a) for i, a in enumerate(ACTIVATIONS)]
    cases += [make(("residual", *parameters), 100, activation="silu", weight_offset=1.0)]
    return [*cases, make((), 101), make(("residual",), 102, eps=0.5)]


def channels(statistic, **call):
    """Cases of 2 images of 4 channels of 3 pixels; a row is one channel of one image."""
    call |= {"eps": 2.0**-16, "activation": "identity"}

    def make(optional, seed, **more):
        return case(by_channel(statistic), (2 * CHANNELS, 3), optional, seed, **(call | more))

    cases = [make(("weight", "bias"), i, activation=a) for i, a in enumerate(ACTIVATIONS)]
    cases += [make(("skip", "weight", "bias"), 100, activation="silu")]
    return [*cases, make((), 101), make(("skip",), 102, eps=0.5)]


if __name__ == "__main__":
    write("layer_norm", rows(layer_norm, ("weight", "bias")))
    write("layer_norm_2d", rows(layer_norm, ("weight", "bias")))  # the rows are the pixels; the test transposes
    write("rms_norm", rows(rms_norm, ("weight",)))
    write("batch_norm", channels(lambda n, c: c, training=True, running_mean=None, running_var=None))
    write("group_norm", channels(lambda n, c: (n, c // 2), num_groups=2))
    write("instance_norm", channels(lambda n, c: (n, c)))
