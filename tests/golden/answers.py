"""Gradients by differences, and the golden cases that hold them."""

import json
import random
from pathlib import Path

from mpmath import diff, mpf

HERE = Path(__file__).parent
CHANNELS = 4  # and columns of a row


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


def answers(outputs, tensors, call, cotangents, state=()):
    """Every output, and the gradient of every tensor that is no state."""
    want = {f"output {i}": y for i, y in enumerate(outputs(tensors, call)[: len(cotangents)])}
    return want | {f"grad {k}": gradient(outputs, tensors, call, cotangents, k) for k in tensors if k not in state}


def case(answer, shape, optional, seed, state=lambda numbers: {}, **call):
    """One golden case; inputs are multiples of 1/64, so exact in float64."""
    draw, (rows, columns) = random.Random(seed), shape

    def numbers(n):
        return [mpf(draw.randint(-192, 192)) / 64 for _ in range(n)]

    kinds = [(1, 0), (1, 30), (mpf(1) / 64, 0)]
    tensors = {"input": [[v * scale + shift for v in numbers(columns)] for scale, shift in (kinds * rows)[:rows]]}
    like_input = ("residual", "skip")
    tensors |= {k: [numbers(columns) for _ in range(rows)] if k in like_input else numbers(CHANNELS) for k in optional}
    cotangents = [[numbers(columns) for _ in range(rows)] for _ in range(1 + ("residual" in optional))]
    tensors |= state(numbers)
    want = answer(tensors, call, cotangents)
    call |= {"slope": 0.25} if call["activation"] == "leaky_relu" else {}
    return {"call": call, "tensors": tensors, "cotangents": cotangents, "want": want}


def write(stem, cases):
    text = json.dumps(cases, default=lambda v: float(v), indent=None).replace('{"call"', '\n{"call"')
    (HERE / f"{stem}.json").write_text(text + "\n")


def weights(outputs, shapes, seed, **call):
    """One golden case of a function of weights: tensors of those shapes."""
    draw = random.Random(seed)

    def numbers(*shape):
        return [numbers(*shape[1:]) for _ in range(shape[0])] if shape else mpf(draw.randint(-192, 192)) / 64

    tensors = {k: numbers(*shape) for k, shape in shapes.items()}
    y = outputs(tensors, call)[0]
    cotangents = [numbers(len(y), len(y[0]))]
    want = answers(outputs, tensors, call, cotangents)
    call |= {"leak": 0.25} if call.get("activation") == "leaky_relu" else {}
    return {"call": call, "tensors": tensors, "cotangents": cotangents, "want": want}
