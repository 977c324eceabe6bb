"""Norms with a state: batch renorm, streaming norm and online norm, and the states that they start from."""

from activations import clamp
from answers import CHANNELS, answers, gradient
from formulas import finished, moments
from mpmath import mpf, sqrt


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
