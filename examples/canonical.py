"""Proposition 1 of NormProp while a net trains, the singular values of a layer's Jacobian, and what pooling changes.

A perceptron of NormProp layers learns images; after each epoch the covariance of what every layer computes of the test
images, before its activation, is compared with its diagonal, and that with the bound that the filters' coherence gives.
"""

import sys
from collections.abc import Generator
from functools import partial

import torch
from _common import GREY, RED, Job, console, experiment, images, options, run, save, table, tidy
from _data import Images
from _results import Number, Results, write
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME = "canonical"
COHERENCE, BOUND, WHITE, MEASURED = "coherence", "bound", "error, white input", "error, test images"
LOWEST, HIGHEST, RMS = "lowest", "highest", "root mean square"
SQUARE, NARROWING = "Jacobian, 64 to 64", "Jacobian, 1024 to 64"
BEFORE, MAX, MEAN = "convolution", "max pooling", "average pooling"
AVERAGE, DEVIATION = "mean", "deviation"
WIDTH, LAYERS, BATCH = 64, 6, 50


def network(features: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    hidden = [nk.NormPropLinear(features if i == 0 else WIDTH, WIDTH) for i in range(LAYERS)]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 10))


def filters(layer: nk.NormPropLinear) -> Tensor:
    return nn.functional.normalize(layer.weight.detach().double(), dim=1)


@torch.no_grad()
def errors(model: nn.Sequential, x: Tensor) -> list[dict[str, float]]:
    """Of every layer: what the proposition says, and what it speaks of, where x is white and as it is."""
    found = []
    for layer in model[:-1]:
        w = filters(layer)
        white, covariance = w @ w.T, (x.double() @ w.T).T.cov(correction=0)
        apart = [(c - c.diag().diag()).norm().item() for c in (white, covariance)]
        bound = nk.canonical_error_bound(w).item()
        found.append({COHERENCE: nk.coherence(w).item(), BOUND: bound, WHITE: apart[0], MEASURED: apart[1]})
        x = layer(x)
    return found


def learn(data: tuple[Tensor, Tensor], x: Tensor, rate: float, epochs: int, seed: int) -> Generator[None, None, list]:
    """The paper's recipe; errors before the first epoch and after each."""
    model, found = network(x.shape[1], seed), []
    optimizer, order = torch.optim.SGD(model.parameters(), rate, momentum=0.9), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        found.append(errors(model, x))
        for rows in torch.randperm(len(data[1]), generator=order).split(BATCH):
            loss = nn.functional.cross_entropy(model(data[0][rows]), data[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
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
    images = data.test_images.float()
    x = nk.DataNorm(tuple(images.shape[1:])).fit(data.images.float())(images)
    y = nk.NormPropConv2d(x.shape[1], 32, 5, padding=2, gain_init=1.0)(x)
    kinds = {BEFORE: y, MAX: nn.functional.max_pool2d(y, 3, 2, 1), MEAN: nn.functional.avg_pool2d(y, 3, 2, 1)}
    return {name: (t.mean().item(), t.std().item()) for name, t in kinds.items()}


def plot(found: Results) -> Figure:
    """A layer a panel: the bound, and the errors below or above it."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, LAYERS, sharey=True)):
        for quantity, colour, style in ((BOUND, "black", "--"), (WHITE, GREY, "-"), (MEASURED, RED, "-")):
            curve = found.curve(f"layer {i + 1}", quantity)
            axes.plot(range(len(curve)), curve, style, color=colour, label=quantity)
        axes.set(title=f"layer {i + 1}", xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        tidy(axes)
    axes.legend(frameon=False, fontsize="small")
    figure.supylabel("‖covariance - its diagonal‖, Frobenius", fontsize="medium")
    figure.suptitle(f"Canonical error bound, NormProp layers of {WIDTH}, {found.data}", fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__, experiment(epochs=5, rate=0.01))
    data = images(chosen)
    norm = nk.DataNorm(data.images[0].numel()).fit(data.images.flatten(1).float())
    x, tested = (norm(t.flatten(1).float()) for t in (data.images, data.test_images))
    steps = chosen.epochs * -(-len(x) // BATCH)
    trained = partial(learn, (x, data.labels), tested, chosen.rate, chosen.epochs)
    lines = []
    for seed, epochs in run({s: Job(steps, partial(trained, s)) for s in chosen.seeds}).items():
        for at, layers in enumerate(epochs):
            for i, found in enumerate(layers, 1):
                lines += [Number(data.name, f"layer {i}", q, value, seed, at) for q, value in found.items()]
    for seed in chosen.seeds:
        for arm, inputs in ((SQUARE, WIDTH), (NARROWING, 16 * WIDTH)):
            lines += [Number("normal input", arm, q, v, seed) for q, v in singular_values(inputs, seed).items()]
        for arm, pair in pooled(data, seed).items():
            lines += [Number(data.name, arm, q, v, seed) for q, v in zip((AVERAGE, DEVIATION), pair, strict=True)]
    found, normal = Results(lines).on(data.name), Results(lines).on("normal")
    heads, names = (COHERENCE, BOUND, WHITE, MEASURED), [f"layer {i + 1}" for i in range(LAYERS)]
    table(f"{data.name}, after training", ["", *heads], [[n, *(found.show(n, q, 2) for q in heads)] for n in names])
    heads = (LOWEST, HIGHEST, RMS)
    table("singular values", ["", *heads], [[n, *(normal.show(n, q, 2) for q in heads)] for n in (SQUARE, NARROWING)])
    heads = (AVERAGE, DEVIATION)
    table("pooling", ["after", *heads], [[n, *(found.show(n, q, 2) for q in heads)] for n in (BEFORE, MAX, MEAN)])
    console.print(f"results: {write(lines, chosen.out, NAME)}")
    save(plot(found), chosen.out, f"{NAME}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
