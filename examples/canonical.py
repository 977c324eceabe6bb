"""Proposition 1 of NormProp while a net trains, whether its pre-activations are Gaussian, the singular values of a
layer's Jacobian, and what pooling changes.

A perceptron of NormProp layers learns images; after each epoch the covariance of what every layer computes of the test
images, before its activation, is compared with its diagonal, and that with the bound that the filters' coherence gives.
"""

import argparse
import sys
from collections.abc import Generator
from functools import partial

import torch
from _common import experiment, images, main, options
from _console import table
from _data import Images
from _jobs import Job, run
from _plots import GREY, PAPER, RED, legend, panels, whole
from _results import Number, Results
from _training import step
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME = "canonical"
COHERENCE, BOUND, WHITE, MEASURED = "coherence", "bound", "error, white input", "error, test images"
SKEWNESS, KURTOSIS = "|skewness|, of a unit", "|excess kurtosis|, of a unit"
LOWEST, HIGHEST, RMS = "lowest", "highest", "root mean square"
SQUARE, NARROWING = "Jacobian, 64 to 64", "Jacobian, 1024 to 64"
BEFORE, MAX, MEAN = "convolution", "max pooling", "average pooling"
AVERAGE, DEVIATION = "mean", "deviation"
PIXELS, NAMES = "pixels", tuple(f"layer {i + 1}" for i in range(6))
WIDTH, BATCH = 64, 50


def network(features: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    hidden = [nk.NormPropLinear(features if i == 0 else WIDTH, WIDTH) for i in range(len(NAMES))]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 10))


def filters(layer: nn.Module) -> Tensor:
    assert isinstance(layer, nk.NormPropLinear)
    return nn.functional.normalize(layer.weight.detach().double(), dim=1)


def shape(u: Tensor) -> dict[str, float]:
    """How far the units are from Gaussian, of which both numbers are 0: medians, for pixels that are mostly 0."""
    u = u[:, u.std(0) > 0]
    z = (u - u.mean(0)) / u.std(0, correction=0)
    moments = {SKEWNESS: z.pow(3).mean(0), KURTOSIS: z.pow(4).mean(0) - 3}
    return {name: values.abs().median().item() for name, values in moments.items()}


@torch.no_grad()
def errors(model: nn.Sequential, x: Tensor) -> list[dict[str, float]]:
    """Of every layer: what the proposition says, and what it speaks of, where x is white and as it is."""
    found = []
    for layer in list(model)[:-1]:
        w = filters(layer)
        u = x.double() @ w.T
        white, covariance = w @ w.T, u.T.cov(correction=0)
        apart = [(c - c.diag().diag()).norm().item() for c in (white, covariance)]
        bound = nk.canonical_error_bound(w).item()
        row = {COHERENCE: nk.coherence(w).item(), BOUND: bound, WHITE: apart[0], MEASURED: apart[1]}
        found.append({**row, **shape(u)})
        x = layer(x)
    return found


def learn(data: tuple[Tensor, Tensor], x: Tensor, rate: float, epochs: int, seed: int) -> Generator[None, None, list]:
    """The paper's recipe; errors before the first epoch and after each."""
    model, found = network(x.shape[1], seed).to(x.device), []
    optimizer, order = torch.optim.SGD(model.parameters(), rate, momentum=0.9), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        found.append(errors(model, x))
        for rows in torch.randperm(len(data[1]), generator=order).split(BATCH):
            step(model, optimizer, data[0][rows], data[1][rows])
            nk.project_unit_norm_(model)
            yield
    return [*found, errors(model, x)]


@torch.no_grad()
def singular_values(inputs: int, seed: int, samples: int = 20000) -> dict[str, float]:
    """Roots of the eigenvalues of E JJᵀ, as in equation 7: gain 1, normal input, filters as initialised."""
    torch.manual_seed(seed)
    w = filters(nk.NormPropLinear(inputs, WIDTH))
    on = (torch.randn(samples, inputs, dtype=torch.float64) @ w.T > 0).double()
    c1 = nk.activation_moments("relu").c1
    values = torch.linalg.eigvalsh((on.T @ on / samples) * (w @ w.T) / c1**2).sqrt()
    return {LOWEST: values.min().item(), HIGHEST: values.max().item(), RMS: values.square().mean().sqrt().item()}


@torch.no_grad()
def pooled(data: Images, seed: int) -> dict[str, tuple[float, float]]:
    """Mean and deviation of what a convolution with gain 1 makes of images, and of what pooling leaves of that."""
    torch.manual_seed(seed)
    images, device = data.test_images.float(), data.images.device
    x = nk.DataNorm(tuple(images.shape[1:])).to(device).fit(data.images.float())(images)
    y = nk.NormPropConv2d(x.shape[1], 32, 5, padding=2, gain_init=1.0).to(device)(x)
    kinds = {BEFORE: y, MAX: nn.functional.max_pool2d(y, 3, 2, 1), MEAN: nn.functional.avg_pool2d(y, 3, 2, 1)}
    return {name: (t.mean().item(), t.std().item()) for name, t in kinds.items()}


def measure(chosen: argparse.Namespace) -> list[Number]:
    data = images(chosen)
    norm = nk.DataNorm(data.images[0].numel()).to(chosen.device).fit(data.images.flatten(1).float())
    x, tested = (norm(t.flatten(1).float()) for t in (data.images, data.test_images))
    steps = chosen.epochs * -(-len(x) // BATCH)
    trained = partial(learn, (x, data.labels), tested, chosen.rate, chosen.epochs)
    lines = [Number(data.name, PIXELS, quantity, value) for quantity, value in shape(tested.double()).items()]
    for seed, epochs in run({s: Job(steps, partial(trained, s)) for s in chosen.seeds}).items():
        for at, layers in enumerate(epochs):
            for name, found in zip(NAMES, layers, strict=True):
                lines += [Number(data.name, name, q, value, seed, at) for q, value in found.items()]
    for seed in chosen.seeds:
        for arm, inputs in ((SQUARE, WIDTH), (NARROWING, 16 * WIDTH)):
            lines += [Number("normal input", arm, q, v, seed) for q, v in singular_values(inputs, seed).items()]
        for arm, pair in pooled(data, seed).items():
            lines += [Number(data.name, arm, q, v, seed) for q, v in zip((AVERAGE, DEVIATION), pair, strict=True)]
    return lines


def on_images(found: Results) -> Results:
    return Results(n for n in found.numbers if n.data != "normal input")


def report(found: Results) -> None:
    found, normal = on_images(found), found.on("normal input")
    heads: tuple[str, ...] = (COHERENCE, BOUND, WHITE, MEASURED, SKEWNESS, KURTOSIS)
    rows = [[n, *(found.show(n, q, 2) for q in heads)] for n in NAMES]
    table(f"{found.data}, after training", ["", *heads], rows)
    heads = (LOWEST, HIGHEST, RMS)
    table("singular values", ["", *heads], [[n, *(normal.show(n, q, 2) for q in heads)] for n in (SQUARE, NARROWING)])
    heads = (AVERAGE, DEVIATION)
    table("pooling", ["after", *heads], [[n, *(found.show(n, q, 2) for q in heads)] for n in (BEFORE, MAX, MEAN)])


def plots(found: Results) -> dict[str, Figure]:
    """A layer a panel: the bound, and the errors below or above it."""
    found = on_images(found)
    figure, axes = panels(3, 2, width=4.4, height=3.4, sharey=True)
    for each, name in zip(axes, NAMES, strict=True):
        styles = ((BOUND, {**PAPER, "label": "the paper's bound"}), (WHITE, {"color": GREY, "label": WHITE}),
                  (MEASURED, {"color": RED, "label": MEASURED}))  # fmt: skip
        for quantity, style in styles:
            curve = found.curve(name, quantity)
            each.plot(range(len(curve)), curve, **style)
        each.set(title=name, ylim=(0, None))
    whole(axes)
    legend(figure, 3)
    figure.supylabel("‖covariance - its diagonal‖, Frobenius")
    figure.suptitle(f"Canonical error bound, NormProp layers of {WIDTH}\n{found.data}")
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__, experiment(epochs=5, rate=0.01)), measure, report, plots))
