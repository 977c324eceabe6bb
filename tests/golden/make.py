"""Write the golden files: values and gradients in 50 digits with mpmath alone, no torch, gradients by differences.

python tests/golden/make.py
"""

import json
import random
from pathlib import Path

from mpmath import diff, erf, exp, log1p, mp, mpf, sqrt, tanh

mp.dps = 50
HERE = Path(__file__).parent


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


def outputs(norm, tensors, call):
    """(y, s) of every row."""
    x = tensors["input"]
    s = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(x, tensors.get("residual", x), strict=True)]
    s = s if "residual" in tensors else x
    act = ACTIVATIONS[call["activation"]]
    return [[act(u) for u in norm(row, tensors.get("weight"), tensors.get("bias"), call)] for row in s], s


def loss(norm, tensors, call, cotangents):
    """The scalar whose gradients are those that the cotangents ask for."""
    pairs = zip(outputs(norm, tensors, call), cotangents, strict=False)
    return sum(
        a * b for y, dy in pairs for row, drow in zip(y, dy, strict=True) for a, b in zip(row, drow, strict=True)
    )


def gradient(norm, tensors, call, cotangents, name):
    """d loss / d tensors[name], one element after the other."""
    value = tensors[name]
    nested = isinstance(value[0], list)
    rows = value if nested else [value]

    def of(i, j):
        def changed(v):
            new = [[v if (a, b) == (i, j) else rows[a][b] for b in range(len(rows[a]))] for a in range(len(rows))]
            return loss(norm, tensors | {name: new if nested else new[0]}, call, cotangents)

        return diff(changed, rows[i][j])

    grads = [[of(i, j) for j in range(len(rows[i]))] for i in range(len(rows))]
    return grads if nested else grads[0]


def case(norm, optional, seed, **call):
    """One golden case on 3 rows of 4 columns; inputs are multiples of 1/64, so exact in float64."""
    draw = random.Random(seed)

    def numbers(n):
        return [mpf(draw.randint(-192, 192)) / 64 for _ in range(n)]

    tensors = {
        "input": [[v * scale + shift for v in numbers(4)] for scale, shift in ((1, 0), (1, 30), (mpf(1) / 64, 0))]
    }
    tensors |= {k: [numbers(4) for _ in range(3)] if k == "residual" else numbers(4) for k in optional}
    cotangents = [[numbers(4) for _ in range(3)] for _ in range(1 + ("residual" in optional))]
    call = {"eps": 2.0**-16, "weight_offset": 0.0, "activation": "identity"} | call
    want = {f"output {i}": y for i, y in enumerate(outputs(norm, tensors, call)[: len(cotangents)])}
    want |= {f"grad {k}": gradient(norm, tensors, call, cotangents, k) for k in tensors}
    call |= {"slope": 0.25} if call["activation"] == "leaky_relu" else {}
    return {"call": call, "tensors": tensors, "cotangents": cotangents, "want": want}


def write(stem, norm, parameters):
    cases = [case(norm, parameters, i, activation=a) for i, a in enumerate(ACTIVATIONS)]
    cases += [case(norm, ("residual", *parameters), 100, activation="silu", weight_offset=1.0)]
    cases += [case(norm, (), 101), case(norm, ("residual",), 102, eps=0.5)]
    text = json.dumps(cases, default=lambda v: float(v), indent=None).replace('{"call"', '\n{"call"')
    (HERE / f"{stem}.json").write_text(text + "\n")


if __name__ == "__main__":
    write("layer_norm", layer_norm, ("weight", "bias"))
    write("layer_norm_2d", layer_norm, ("weight", "bias"))  # the rows are the pixels; the test transposes
    write("rms_norm", rms_norm, ("weight",))
