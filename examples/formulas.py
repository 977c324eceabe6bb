"""What the four texts print as formulas, beside our layers in float64: how far they are apart, and a few properties."""

import sys

import torch
from _common import console, options, table
from _results import Number, Results, write
from torch import Tensor

import normkernels as nk

NAME = "formulas"
APART, MEAN, VARIANCE, REFUSES = "largest difference", "mean", "variance", "refuses one sample"
REMARK_1, REMARK_2 = "relu(z), z normal", "PReLU of slope 0.25 of z"
BATCH, TENSORFLOW, LAYER, GROUPS, RNN = (
    "batch norm",
    "batch norm with given statistics",
    "layer norm",
    "group norm",
    "RNN",
)
LINEAR, CONVOLUTION, ANY, LENGTH = (
    "NormProp linear (9)",
    "NormProp convolution (11)",
    "NormProp tanh (12)",
    "filters times 3",
)
MODES, LN_MODES, DEEP = "NormProp, training and eval", "layer norm, training and eval", "entering layer {} of 8"
SINGLE = {"batch norm": nk.BatchNorm1d, "batch renorm": nk.BatchRenorm1d, "streaming norm": nk.StreamingNorm1d}
SAMPLES = 10**6
C1, C2 = (0.5 * (1 - 1 / torch.pi)) ** 0.5, (2 * torch.pi) ** -0.5
F64 = {"dtype": torch.float64}


def normalised(a: Tensor, dims: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """(a - mean) / sigma, as all four texts have it."""
    return (a - a.mean(dims, keepdim=True)) / (a.var(dims, correction=0, keepdim=True) + eps).sqrt()


def batches() -> dict[str, tuple[Tensor, Tensor]]:
    """Of the norms of data: ours, and the formula."""
    x = 3 + 2 * torch.randn(16, 6, **F64)
    image = torch.randn(4, 6, 5, 5, **F64)
    g, b, m, v = torch.randn(4, 6, **F64).abs()
    given = nk.functional.batch_norm(x, m, v, g, b, False, 0.0, 1e-3)
    rnn, a, h = nk.LayerNormRNN(6, 6, **F64), torch.randn(7, 2, 6, **F64), torch.zeros(2, 6, **F64)
    states = []
    for step in a:
        total = h @ rnn.weight_hh_l0.T + step @ rnn.weight_ih_l0.T
        h = torch.tanh(rnn.norm_weight_l0 * normalised(total, (1,)) + rnn.bias_ih_l0 + rnn.bias_hh_l0)
        states.append(h)
    return {
        BATCH: (nk.BatchNorm1d(6, **F64)(x), normalised(x, (0,))),
        TENSORFLOW: (given, g * (x - m) / (v + 1e-3).sqrt() + b),
        LAYER: (nk.functional.layer_norm(x, (6,), g, b, activation="relu"), (g * normalised(x, (1,)) + b).relu()),
        GROUPS: (nk.GroupNorm(1, 6, **F64)(image), normalised(image, (1, 2, 3))),
        RNN: (rnn(a)[0], torch.stack(states)),
        LN_MODES: (nk.LayerNorm(6, **F64)(x), nk.LayerNorm(6, **F64).eval()(x)),
    }


def filters() -> dict[str, tuple[Tensor, Tensor]]:
    """The same of NormProp."""
    x, image = torch.randn(16, 6, **F64), torch.randn(4, 6, 5, 5, **F64)
    linear, tanh = nk.NormPropLinear(6, 8, **F64), nk.NormPropLinear(6, 8, "tanh", **F64)
    convolution = nk.NormPropConv2d(6, 8, 3, padding=1, **F64)
    z, t = (x @ layer.weight.T / layer.weight.norm(dim=1) * layer.gain for layer in (linear, tanh))
    length = convolution.weight.flatten(1).norm(dim=1)[:, None, None, None]
    c = torch.nn.functional.conv2d(image, convolution.weight / length, padding=1) * convolution.gain[:, None, None]
    c1, c2, _ = nk.activation_moments("tanh")
    found = {
        LINEAR: (linear(x), (z.relu() - C2) / C1),
        CONVOLUTION: (convolution(image), (c.relu() - C2) / C1),
        ANY: (tanh(x), (t.tanh() - c2) / c1),
        MODES: (linear(x), linear.eval()(x)),
    }
    before = linear(x).detach()
    with torch.no_grad():
        linear.weight.mul_(3)
    return {**found, LENGTH: (linear(x), before)}


def moments() -> list[tuple[str, Tensor]]:
    """What remarks 1 and 2 are about, and what enters each layer of 512 behind standard normal input, with gain 1."""
    z = torch.randn(SAMPLES, **F64)
    found = [(REMARK_1, z.relu()), (REMARK_2, torch.where(z > 0, z, 0.25 * z))]
    x = torch.randn(2000, 512)
    for layer in range(2, 9):
        x = nk.NormPropLinear(512, 512, gain_init=1.0)(x).detach()
        found.append((DEEP.format(layer), x))
    return found


def refuses(layer: type[torch.nn.Module]) -> bool:
    """Whether it takes no sample alone."""
    try:
        layer(8)(torch.zeros(1, 8))
    except ValueError:
        return True
    return False


def main() -> int:
    chosen = options(__doc__)
    torch.manual_seed(0)
    lines = []
    for arm, (ours, formula) in {**batches(), **filters()}.items():
        lines.append(Number("normal numbers, float64", arm, APART, (ours - formula).abs().max().item()))
    for arm, values in moments():
        lines += [Number("normal numbers", arm, MEAN, values.mean().item())]
        lines += [Number("normal numbers", arm, VARIANCE, values.var().item())]
    lines += [Number("a sample of zeros", arm, REFUSES, refuses(layer)) for arm, layer in SINGLE.items()]
    found = Results(lines)
    table("Our layers and the formulas", ["", APART], [[a, f"{found.mean(a, APART):.0e}"] for a in found.arms(APART)])
    rows = [[a, found.show(a, MEAN, 4), found.show(a, VARIANCE, 4)] for a in found.arms(MEAN)]
    table("Moments", ["", MEAN, VARIANCE], rows)
    console.print(f"results: {write(lines, chosen.out, NAME)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
