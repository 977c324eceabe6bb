"""The golden files of the recurrent family, written as make.py writes the others.

python tests/golden/recurrent.py
"""

import random

from activations import sigmoid
from answers import answers, write
from formulas import moments
from mpmath import mpf, sqrt, tanh

HIDDEN = 3
ROWS = [3, 2]  # of each step
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
GROUPS = {"joint": lambda gates: [gates], "gate": lambda gates: [1] * gates, "rz": lambda _: [2, 1]}


def normalised(values, eps):
    mean, var = moments(values)
    return [(v - mean) / sqrt(var + eps) for v in values]


def norm_rows(a, groups, eps):
    """Each group of adjacent gates of each row."""
    found = []
    for row in a:
        parts, at = [], 0
        for gates in groups:
            parts += normalised(row[at : at + gates * HIDDEN], eps)
            at += gates * HIDDEN
        found.append(parts)
    return found


def norm_columns(a, eps):
    return [list(row) for row in zip(*(normalised(list(column), eps) for column in zip(*a, strict=True)), strict=True)]


def affine(a, weight, bias):
    return [[v * w + b for v, w, b in zip(row, weight, bias, strict=True)] for row in a]


def plus(a, b):
    return [[v + w for v, w in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def product(h, weight):
    return [[sum(v * w for v, w in zip(row, of, strict=True)) for of in weight] for row in h]


def gate(row, k):
    return row[k * HIDDEN : (k + 1) * HIDDEN]


def step(kind, batch, p, h, c, tensors, call):
    """New h and c of the rows of a step."""
    eps, a = call["eps"], product(h, tensors["weight_hh"])
    apart = call["norm_terms"] == "separate"
    a = a if apart else plus(a, p)
    groups = GROUPS[call.get("norm_over", "joint")](GATES[kind])
    q = affine(norm_columns(a, eps) if batch else norm_rows(a, groups, eps), tensors["weight"], tensors["bias"])
    p = p if apart else [[mpf(0)] * len(row) for row in p]
    if kind == "rnn":
        return [[tanh(v) for v in row] for row in plus(p, q)], None
    if kind == "gru":
        return [gru(*rows) for rows in zip(p, q, h, strict=True)], None
    gates = plus(p, q)
    cells = [[sigmoid(f) * v + sigmoid(i) * tanh(g) for i, f, g, v in zip(gate(z, 0), gate(z, 1), gate(z, 2), before,
              strict=True)] for z, before in zip(gates, c, strict=True)]  # fmt: skip
    normed = norm_columns(cells, eps) if batch else norm_rows(cells, [1], eps)
    normed = affine(normed, tensors["cell_weight"], tensors["cell_bias"])
    out = [[sigmoid(o) * tanh(m) for o, m in zip(gate(z, 3), row, strict=True)] for z, row in
           zip(gates, normed, strict=True)]  # fmt: skip
    return out, normed if call["norm_cell"] == "carried" else cells


def gru(p, q, before):
    found = []
    for k, h in enumerate(before):
        r = sigmoid(gate(p, 0)[k] + gate(q, 0)[k])
        z = sigmoid(gate(p, 1)[k] + gate(q, 1)[k])
        n = tanh(gate(p, 2)[k] + r * gate(q, 2)[k])
        found.append((1 - z) * n + z * h)
    return found


def walk(kind, batch):
    """outputs(tensors, call): y, h_n and, of an LSTM, c_n."""

    def outputs(tensors, call):
        h, c = tensors["h_0"], tensors.get("c_0", tensors["h_0"])
        ys, at = {}, [0, *[sum(ROWS[: t + 1]) for t in range(len(ROWS))]]
        for t in reversed(range(len(ROWS))) if call["reverse"] else range(len(ROWS)):
            n = ROWS[t]
            new_h, new_c = step(kind, batch, tensors["input"][at[t] : at[t + 1]], h[:n], c[:n], tensors, call)
            ys[t], h, c = new_h, new_h + h[n:], (new_c or c[:n]) + c[n:]
        return ([row for t in sorted(ys) for row in ys[t]], h, c)[: 3 if kind == "lstm" else 2]

    return outputs


def case(stem, seed, **call):
    kind, batch, draw = stem.rpartition("_")[2], stem.startswith("batch"), random.Random(seed)

    def numbers(*shape):
        return [numbers(*shape[1:]) for _ in range(shape[0])] if shape else mpf(draw.randint(-96, 96)) / 64

    wide, rows = GATES[kind] * HIDDEN, sum(ROWS)
    tensors = {"input": numbers(rows, wide), "weight_hh": numbers(wide, HIDDEN), "weight": numbers(wide),
               "bias": numbers(wide), "h_0": numbers(ROWS[0], HIDDEN)}  # fmt: skip
    if kind == "lstm":
        tensors |= {"cell_weight": numbers(HIDDEN), "cell_bias": numbers(HIDDEN), "c_0": numbers(ROWS[0], HIDDEN)}
    states = 2 if kind == "lstm" else 1
    cotangents = [numbers(rows, HIDDEN), *(numbers(ROWS[0], HIDDEN) for _ in range(states))]
    call = {"batch_sizes": ROWS, "eps": 2.0**-10} | call
    found = {"call": call, "tensors": tensors, "cotangents": cotangents}
    found["want"] = answers(walk(kind, batch), tensors, call, cotangents)
    nothing = dict.fromkeys(("running_mean", "running_var"))
    return found | ({"call": call | nothing | {"training": True}} if batch else {})


if __name__ == "__main__":
    FORMS = [{"norm_terms": "separate", "reverse": False}, {"norm_terms": "sum", "reverse": True}]
    OWN = {"layer_norm_rnn": ({}, {}), "batch_norm_rnn": ({}, {}),
           "layer_norm_gru": ({"norm_over": "rz"}, {"norm_over": "gate"}),
           "layer_norm_lstm": ({"norm_over": "joint", "norm_cell": "output"},
                               {"norm_over": "gate", "norm_cell": "carried"}),
           "batch_norm_lstm": ({"norm_cell": "output"}, {"norm_cell": "carried"})}  # fmt: skip
    for stem, own in OWN.items():
        write(stem, [case(stem, i, **FORMS[i], **options) for i, options in enumerate(own)])
