"""Write the golden files: values and gradients in 50 digits with mpmath alone, no torch, gradients by differences.

python tests/golden/make.py
"""

import json
import random
from functools import partial
from pathlib import Path

from mpmath import diff, erf, exp, log1p, mp, mpf, npdf, quad, sqrt, tanh

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


def finished(xhat, tensors, call, guard=lambda z: z):
    """act(guard(xhat * weight + bias) + skip), where each row is one channel of one image."""
    z = []
    for i, row in enumerate(xhat):
        w, b = (tensors[k][i % CHANNELS] if k in tensors else mpf(k == "weight") for k in ("weight", "bias"))
        z.append([h * w + b for h in row])
    act, skip = ACTIVATIONS[call["activation"]], tensors.get("skip", [[0] * len(row) for row in z])
    return [[act(u + s) for u, s in zip(*pair, strict=True)] for pair in zip(guard(z), skip, strict=True)]


def by_channel(statistic):
    """(y,) where each row is one channel of one image, and those of one ``statistic(image, channel)`` share it."""

    def outputs(tensors, call):
        x = tensors["input"]
        keys = [statistic(i // CHANNELS, i % CHANNELS) for i in range(len(x))]
        pools = {key: [v for k, row in zip(keys, x, strict=True) if k == key for v in row] for key in keys}
        found = {key: moments(pool) for key, pool in pools.items()}
        xhat = [
            [(v - found[key][0]) / sqrt(found[key][1] + call["eps"]) for v in row]
            for key, row in zip(keys, x, strict=True)
        ]
        return (finished(xhat, tensors, call),)

    return outputs


def moments(values, p=2):
    """The mean, and the mean of |v - mean|^p."""
    mean = sum(values) / len(values)
    return mean, sum(abs(v - mean) ** p for v in values) / len(values)


def of_channel(x, c):
    return [v for row in x[c::CHANNELS] for v in row]


def normalised(x, statistics):
    """x with (mean, scale) of each channel."""
    pairs = [statistics[i % CHANNELS] for i in range(len(x))]
    return [[(v - mean) / scale for v in row] for (mean, scale), row in zip(pairs, x, strict=True)]


def batch_renorm(tensors, call, cotangents):
    """r and d are constants of the gradient."""
    bounds, before = (call["r_max"], call["d_max"]), (tensors["running_mean"], tensors["running_std"])

    def batch(x):
        found = (moments(of_channel(x, c)) for c in range(CHANNELS))
        return [(mean, sqrt(var + call["eps"])) for mean, var in found]

    found = batch(tensors["input"])
    pairs = list(zip(found, *before, strict=True))
    r = [clamp(std / old, 1 / mpf(bounds[0]), bounds[0]) for (_, std), _, old in pairs]
    d = [clamp((mean - old) / old_std, -bounds[1], bounds[1]) for (mean, _), old, old_std in pairs]

    def outputs(tensors, call):
        xhat = normalised(tensors["input"], batch(tensors["input"]))
        corrected = [[h * r[i % CHANNELS] + d[i % CHANNELS] for h in row] for i, row in enumerate(xhat)]
        return (finished(corrected, tensors, call),)

    new = [[old + call["momentum"] * (now - old) for old, now in zip(*pair, strict=True)]
           for pair in zip(before, zip(*found, strict=True), strict=True)]  # fmt: skip
    return answers(outputs, tensors, call, cotangents, BATCH_RENORM) | {
        f"new {k}": v for k, v in zip(BATCH_RENORM, new, strict=True)
    }


def streamed(found, term, counts, weights):
    """What is used of two statistics of each channel, and their new short term."""
    used, new, first = [], [], counts[1] == 0
    for c in range(CHANNELS):
        short = [(counts[0] * term[1][i][c] + found[c][i]) / (counts[0] + 1) for i in range(2)]
        long = short if first else [term[0][i][c] for i in range(2)]
        used.append([sum(w * t[i] for w, t in zip(weights, (long, short, found[c]), strict=False)) for i in range(2)])
        new.append(short)
    return used, [[pair[i] for pair in new] for i in range(2)]


def streaming_norm(tensors, call, cotangents):
    """Used statistics are constants of the loss; found ones add to it, each times its streamed gradient."""
    p, counts = call["p"], tensors["counts"]
    terms = [[tensors[k][2 * i : 2 * i + 2] for k in ("long_term", "short_term")] for i in range(2)]

    def found(x):
        pairs = (moments(of_channel(x, c), p) for c in range(CHANNELS))
        return [[mean, (power + call["eps"]) ** (1 / mpf(p))] for mean, power in pairs]

    used, short = streamed(found(tensors["input"]), terms[0], counts[0], call["alpha"])

    def outputs(tensors, call):
        statistics = [tensors.get(f"used {c}", used[c]) for c in range(CHANNELS)]
        return (finished(normalised(tensors["input"], statistics), tensors, call),)

    of_used = [
        gradient(outputs, tensors | {f"used {c}": used[c]}, call, cotangents, f"used {c}") for c in range(CHANNELS)
    ]
    taken, short_grad = streamed(of_used, terms[1], counts[1], call["beta"])

    def with_found(tensors, call):
        """A second output: the statistics found, whose cotangents are their streamed gradients."""
        return *outputs(tensors, call), found(tensors["input"])

    want = answers(outputs, tensors, call, cotangents, STREAMING_NORM)
    want["grad input"] = gradient(with_found, tensors, call, [*cotangents, taken], "input")
    arrived = [[arrivals + 1, updates] for arrivals, updates in counts]
    return want | {"new short_term": short + short_grad, "new counts": arrived, "new long_term": tensors["long_term"]}


def online_norm(tensors, call, cotangents):
    """Image after image; the control process takes the gradients of the loss at xhat in the same order."""
    alpha, p, x = mpf(call["alpha_fwd"]), 1 - mpf(call["alpha_bkw"]), tensors["input"]
    mean, var, u, e = ([*tensors[k]] for k in ONLINE_NORM)
    met, xhat = [], []
    for i, row in enumerate(x):
        c, (m, s) = i % CHANNELS, moments(row)
        met.append(sqrt(var[c] + call["eps"]))
        xhat.append([(v - mean[c]) / met[-1] for v in row])
        var[c] = alpha * var[c] + (1 - alpha) * s + alpha * (1 - alpha) * (m - mean[c]) ** 2
        mean[c] = alpha * mean[c] + (1 - alpha) * m

    def guard(z):
        if call["guard"] == "layer_scaling":
            pools = [[v for row in z[n : n + CHANNELS] for v in row] for n in range(0, len(z), CHANNELS)]
            zeta = [sqrt(sum(v**2 for v in pool) / len(pool) + call["ls_eps"]) for pool in pools]
            return [[v / zeta[i // CHANNELS] for v in row] for i, row in enumerate(z)]
        return [[clamp(v, -call["clamp"], call["clamp"]) for v in row] for row in z] if call["guard"] else z

    def outputs(tensors, call):
        return (finished(tensors["xhat"], tensors, call, guard),)

    constants = {k: v for k, v in tensors.items() if k != "input"} | {"xhat": xhat}
    want, dx = answers(outputs, constants, call, cotangents, ONLINE_NORM), []
    for i, (gs, y) in enumerate(zip(want.pop("grad xhat"), xhat, strict=True)):
        c = i % CHANNELS
        gain = min(p, len(y) / sum(v**2 for v in y)) if call["stable"] else p
        h = [g - gain * e[c] * v for g, v in zip(gs, y, strict=True)]
        e[c] += sum(a * b for a, b in zip(h, y, strict=True)) / len(y)
        dx.append([a / met[i] - p * u[c] for a in h])
        u[c] += sum(dx[-1]) / len(y)
    return want | {"grad input": dx} | {f"new {k}": v for k, v in zip(ONLINE_NORM, (mean, var, u, e), strict=True)}


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


def rows(norm, parameters):
    """Cases of 3 rows of 4 columns."""
    defaults = {"eps": 2.0**-16, "weight_offset": 0.0, "activation": "identity"}

    def make(optional, seed, **call):
        return case(partial(answers, by_row(norm)), (3, CHANNELS), optional, seed, **(defaults | call))

    cases = [make(parameters, i, activation=a) for i, a in enumerate(ACTIVATIONS)]
    cases += [make(("residual", *parameters), 100, activation="silu", weight_offset=1.0)]
    return [*cases, make((), 101), make(("residual",), 102, eps=0.5)]


def channels(answer, others=(), state=lambda numbers: {}, **call):
    """Cases of 2 images of 4 channels of 3 pixels; a row is one channel of one image. ``others``: more calls."""
    call |= {"eps": 2.0**-16, "activation": "identity"}

    def make(optional, seed, **more):
        return case(answer, (2 * CHANNELS, 3), optional, seed, state, **(call | more))

    cases = [make(("weight", "bias"), i, activation=a) for i, a in enumerate(ACTIVATIONS)]
    cases += [make(("skip", "weight", "bias"), 100, activation="silu")]
    cases += [make(("weight", "bias"), 200 + i, **other) for i, other in enumerate(others)]
    return [*cases, make((), 101), make(("skip",), 102, eps=0.5)]


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


def weight_norm(tensors, call):
    lengths = [sqrt(sum(a * a for a in v)) for v in tensors["v"]]
    return ([[g * a / r for a in v] for v, g, r in zip(tensors["v"], tensors["g"], lengths, strict=True)],)


def weight_standardization(tensors, call):
    y = []
    for row, g in zip(tensors["w"], tensors.get("gain", [1] * 3), strict=True):
        mean, var = moments(row)
        y.append([g * (a - mean) / sqrt(var + call["eps"]) for a in row])
    return (y,)


def constants(f):
    """Standard deviation and mean of f(z), z standard normal; every kink is an end of an interval."""
    points = [-mp.inf, -20, -6, -3, -1, 0, 1, 3, 6, 20, mp.inf]

    def mean(g):
        return quad(lambda z: g(z) * npdf(z), points)

    c2 = mean(f)
    return sqrt(mean(lambda z: (f(z) - c2) ** 2)), c2


def normprop(act, c1, c2, tensors, call):
    (w,) = weight_norm({"v": tensors["weight"], "g": tensors["gain"]}, {})
    u = [[sum(a * b for a, b in zip(x, v, strict=True)) for v in w] for x in tensors["input"]]
    return ([[(act(a + b) - c2) / c1 for a, b in zip(row, tensors["bias"], strict=True)] for row in u],)


def normprop_cases():
    shapes = {"input": (4, 5), "weight": (3, 5), "gain": (3,), "bias": (3,)}
    for i, (name, act) in enumerate(ACTIVATIONS.items()):
        yield weights(partial(normprop, act, *constants(act)), shapes, i, activation=name)


BATCH_RENORM = ("running_mean", "running_std")
ONLINE_NORM = ("running_mean", "running_var", "epsilon_1", "epsilon_y")
STREAMING_NORM = ("long_term", "short_term", "counts")


def positive(values):
    return [abs(v) + mpf(1) / 64 for v in values]


def renorm_state(numbers):
    return {"running_mean": numbers(CHANNELS), "running_std": positive(numbers(CHANNELS))}


def online_state(numbers):
    state = {k: numbers(CHANNELS) for k in ONLINE_NORM}
    return state | {"running_var": positive(state["running_var"])}


def streaming_state(numbers):
    def term():
        mean, scale, *gradients = (numbers(CHANNELS) for _ in range(4))
        return [mean, positive(scale), *gradients]

    counts = [[mpf(abs(int(v))) for v in numbers(2)] for _ in range(2)]
    return {"long_term": term(), "short_term": term(), "counts": counts}


if __name__ == "__main__":
    write("layer_norm", rows(layer_norm, ("weight", "bias")))
    write("layer_norm_2d", rows(layer_norm, ("weight", "bias")))  # the rows are the pixels; the test transposes
    write("rms_norm", rows(rms_norm, ("weight",)))
    no_state = {"running_mean": None, "running_var": None}
    write("batch_norm", channels(partial(answers, by_channel(lambda n, c: c)), training=True, **no_state))
    write("group_norm", channels(partial(answers, by_channel(lambda n, c: (n, c // 2))), num_groups=2))
    write("instance_norm", channels(partial(answers, by_channel(lambda n, c: (n, c)))))
    narrow = {"r_max": 1.25, "d_max": 0.5}
    renorm = {"training": True, "momentum": 0.25, "r_max": 3.0, "d_max": 5.0}
    write("batch_renorm", channels(batch_renorm, [narrow, {"r_max": 1.0, "d_max": 0.0}], renorm_state, **renorm))
    powers = [{"p": p} for p in (1.0, 1.5, 3.0)]
    forward = {"alpha": (0.5, 0.5), "beta": (0.5, 0.25, 0.25)}
    streaming = {"training": True, "p": 2.0, "alpha": (0.75, 0.25), "beta": (0.75, 0.0, 0.25)}
    write("streaming_norm", channels(streaming_norm, [*powers, forward], streaming_state, **streaming))
    guards = [{"guard": None}, {"guard": "clamp", "clamp": 1.0}]
    decays = [{"alpha_fwd": 0.5, "alpha_bkw": 0.25}, {"alpha_bkw": 0.25, "stable": True}]
    online = {"training": True, "alpha_fwd": 0.875, "alpha_bkw": 0.9375, "guard": "layer_scaling"}
    online |= {"ls_eps": 2.0**-10, "clamp": 5.0, "stable": False}
    write("online_norm", channels(online_norm, [*guards, *decays], online_state, **online))
    write("weight_norm", [weights(weight_norm, {"v": (3, 5), "g": (3,)}, 0)])
    gains = [{"w": (3, 5), "gain": (3,)}, {"w": (3, 5)}]
    write("weight_standardization", [weights(weight_standardization, k, i, eps=0.5**i) for i, k in enumerate(gains)])
    write("normprop", list(normprop_cases()))
