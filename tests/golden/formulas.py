"""Norms as papers write them, on lists of numbers."""

from activations import ACTIVATIONS
from answers import CHANNELS
from mpmath import mp, mpf, npdf, quad, sqrt


def layer_norm(s, weight, bias, call):
    mean = sum(s) / len(s)
    variance = sum((v - mean) ** 2 for v in s) / len(s)
    xhat = [(v - mean) / sqrt(variance + call["eps"]) for v in s]
    weight = weight or [1 - call["weight_offset"]] * len(s)
    return [h * (w + call["weight_offset"]) + b for h, w, b in zip(xhat, weight, bias or [0] * len(s), strict=True)]


def rms_norm(s, weight, bias, call):
    xhat = [v / sqrt(sum(v**2 for v in s) / len(s) + call["eps"]) for v in s]
    weight = weight or [1 - call["weight_offset"]] * len(s)
    return [h * (w + call["weight_offset"]) + b for h, w, b in zip(xhat, weight, bias or [0] * len(s), strict=True)]


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
