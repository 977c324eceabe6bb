"""What the four texts print as formulas, beside our layers in float64: how far they are apart, and a few properties."""

import argparse
import sys
from typing import Any

import torch
from _common import main, options
from _console import table
from _results import Number, Results
from torch import Tensor

import normkernels as nk

NAME = "formulas"
APART, MEAN, VARIANCE, REFUSES = "largest difference", "mean", "variance", "refuses one sample"
RATIO = "gradient of layer 1 over that of layer 12"
ROOT, UNIT, LOOKED_AT = "rms after layer", "deviation of a unit after layer", (1, 2, 4, 8, 12)
REMARK_1, REMARK_2, TANH = "relu(z), z normal", "PReLU of slope 0.25 of z", "tanh(z)"
BATCH, TENSORFLOW, KERAS = "batch norm", "batch norm with given statistics", "running mean, momentum 0.99 of Keras"
BACKWARD, CONSTANT = "batch norm's backward", "backward that takes statistics for constants"
LAYER, WHOLE, GROUPS, INSTANCE, RNN = "layer norm", "layer norm over (C, H, W)", "group norm", "instance norm", "RNN"
WEIGHT, DATA, ALPHA = "weight norm", "data norm, data times 255", "variances behind white input, squared lengths"
LINEAR, CONVOLUTION, ANY, LENGTH = (
    "NormProp linear (9)", "NormProp convolution (11)", "NormProp tanh (12)", "filters times 3",
)  # fmt: skip
MODES, LN_MODES, DEEP = "NormProp, training and eval", "layer norm, training and eval", "entering layer {} of 8"
GAINS: dict[str, float | str] = {"gain 1 / 1.21": "jacobian", "gain 1": 1.0}
SINGLE = {"batch norm": nk.BatchNorm1d, "batch renorm": nk.BatchRenorm1d, "streaming norm": nk.StreamingNorm1d}
SAMPLES = 10**6
C1, C2 = (0.5 * (1 - 1 / torch.pi)) ** 0.5, (2 * torch.pi) ** -0.5
F64: dict[str, Any] = {"dtype": torch.float64}


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
    of = dict(rnn.named_parameters())
    states = []
    for step in a:
        total = h @ of["weight_hh_l0"].T + step @ of["weight_ih_l0"].T
        h = torch.tanh(of["norm_weight_l0"] * normalised(total, (1,)) + of["bias_ih_l0"] + of["bias_hh_l0"])
        states.append(h)
    return {
        BATCH: (nk.BatchNorm1d(6, **F64)(x), normalised(x, (0,))),
        TENSORFLOW: (given, g * (x - m) / (v + 1e-3).sqrt() + b),
        LAYER: (nk.functional.layer_norm(x, (6,), g, b, activation="relu"), (g * normalised(x, (1,)) + b).relu()),
        KERAS: _running(x),
        WHOLE: (nk.GroupNorm(1, 6, **F64)(image), normalised(image, (1, 2, 3))),
        GROUPS: (nk.GroupNorm(3, 6, **F64)(image), normalised(image.unflatten(1, (3, 2)), (2, 3, 4)).flatten(1, 2)),
        INSTANCE: (nk.InstanceNorm2d(6, **F64)(image), normalised(image, (2, 3))),
        DATA: (nk.DataNorm(6).to(**F64).fit(255 * x)(255 * x), nk.DataNorm(6).to(**F64).fit(x)(x)),
        RNN: (rnn(a)[0], torch.stack(states)),
        LN_MODES: (nk.LayerNorm(6, **F64)(x), nk.LayerNorm(6, **F64).eval()(x)),
    }


def _running(x: Tensor) -> tuple[Tensor, Tensor]:
    """After three batches; Keras: moving = 0.99 moving + 0.01 mean."""
    layer, moving = nk.BatchNorm1d(6, momentum=0.01, eps=1e-3, **F64), torch.zeros(6, **F64)
    for batch in (x, 2 * x, 1 - x):
        layer(batch)
        moving = 0.99 * moving + 0.01 * batch.mean(0)
    assert layer.running_mean is not None
    return layer.running_mean, moving


def backwards() -> dict[str, tuple[Tensor, Tensor]]:
    """Of batch norm: ours and the formula's, differentiated with its statistics, and without."""
    x, dy = (3 + 2 * torch.randn(16, 6, **F64)).requires_grad_(), torch.randn(16, 6, **F64)
    mean, var = x.detach().mean(0), x.detach().var(0, correction=0)
    forms = (normalised(x, (0,)), nk.BatchNorm1d(6, **F64)(x), (x - mean) / (var + 1e-5).sqrt())
    formula, ours, constant = (torch.autograd.grad(y, x, dy)[0] for y in forms)
    return {BACKWARD: (ours, formula), CONSTANT: (constant, formula)}


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
    normed = nk.parametrizations.weight_norm(torch.nn.Linear(6, 8, bias=False, **F64))
    g, v = normed.parameters()
    white = torch.linalg.qr(x - x.mean(0))[0] * len(x) ** 0.5
    found[ALPHA] = ((white @ linear.weight.T).square().mean(0), linear.weight.square().sum(1))
    found[WEIGHT] = (normed(x), x @ (g * v / v.norm(dim=1, keepdim=True)).T)
    before = linear(x).detach()
    with torch.no_grad():
        linear.weight.mul_(3)
    return {**found, LENGTH: (linear(x), before)}


def moments() -> list[tuple[str, Tensor]]:
    """What remarks 1 and 2 are about, and what enters each layer of 512 behind standard normal input, with gain 1."""
    z = torch.randn(SAMPLES, **F64)
    found = [(REMARK_1, z.relu()), (REMARK_2, torch.where(z > 0, z, 0.25 * z)), (TANH, z.tanh())]
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


def deep(arm: str) -> list[Number]:
    """12 layers of 512 with normal input, as initialised: their outputs, and a random gradient on its way back."""
    units = [torch.randn(2000, 512, requires_grad=True)]
    for _ in range(12):
        units.append(nk.NormPropLinear(512, 512, gain_init=GAINS[arm])(units[-1]))
    ends = torch.autograd.grad(units[-1], (units[1], units[-1]), torch.randn(2000, 512))
    lines = [Number("normal numbers", arm, RATIO, (ends[0].norm() / ends[1].norm()).item())]
    for at in LOOKED_AT:
        y = units[at].detach()
        lines.append(Number("normal numbers", arm, ROOT, y.square().mean().sqrt().item(), 0, at))
        lines.append(Number("normal numbers", arm, UNIT, y.std(0).mean().item(), 0, at))
    return lines


def measure(chosen: argparse.Namespace) -> list[Number]:
    torch.manual_seed(0)
    lines = []
    for arm, (ours, formula) in {**batches(), **filters(), **backwards()}.items():
        lines.append(Number("normal numbers, float64", arm, APART, (ours - formula).abs().max().item()))
    for arm, values in moments():
        lines += [Number("normal numbers", arm, MEAN, values.mean().item())]
        lines += [Number("normal numbers", arm, VARIANCE, values.var().item())]
    for arm in GAINS:
        lines += deep(arm)
    return lines + [Number("a sample of zeros", arm, REFUSES, refuses(layer)) for arm, layer in SINGLE.items()]


def report(found: Results) -> None:
    table("Our layers and the formulas", ["", APART], [[a, f"{found.mean(a, APART):.0e}"] for a in found.arms(APART)])
    rows = [[a, found.show(a, MEAN, 4), found.show(a, VARIANCE, 4)] for a in found.arms(MEAN)]
    table("Moments", ["", MEAN, VARIANCE], rows)
    heads = [f"{quantity} {at}" for quantity in (ROOT, UNIT) for at in LOOKED_AT]
    rows = [[arm, *(f"{value:.2f}" for q in (ROOT, UNIT, RATIO) for value in found.curve(arm, q))] for arm in GAINS]
    table("12 layers of 512", ["", *heads, RATIO], rows)


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__), measure, report))
