"""The same auto-encoder on real digits: 64 pixels of 17 grey levels, one-hot, in batches and as a stream.

In batches of 32 at 0.03 layer norm gains little; it gains where the rate throws the plain network about.
"""

import sys

import torch
from _autoencoder import AutoEncoder, Setting, compare
from _autoencoder_report import plot, report
from _common import options, save
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

LEVELS = 17
SETTINGS = [Setting(32, 0.03, (0, 1, 2)), Setting(32, 0.1, (0, 1, 2)), Setting(1, 0.03, (0, 1))]


@torch.no_grad()
def grey(model: AutoEncoder, x: Tensor) -> Tensor:
    """The expected level of each pixel, 0 to 16, from the scores of its 17 levels."""
    scores = torch.sigmoid(model(x)).unflatten(1, (64, LEVELS))
    return (scores / scores.sum(2, keepdim=True)) @ torch.arange(LEVELS, dtype=x.dtype, device=x.device)


def plot_reconstructions(images: Tensor, plain: AutoEncoder, norm: AutoEncoder, x: Tensor, title: str) -> Figure:
    """The first ten digits, and what each network makes of them."""
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    rows = {"digit": images, "plain": grey(plain, x).cpu(), "layer norm": grey(norm, x).cpu()}
    for line, (name, pictures) in zip(figure.subplots(3, 10), rows.items(), strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture.view(8, 8), cmap="gray_r", vmin=0, vmax=LEVELS - 1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    figure.suptitle(title, fontsize="medium")
    return figure


def main() -> int:
    chosen = options(__doc__)
    images = torch.tensor(load_digits().data)
    data = torch.nn.functional.one_hot(images.long(), LEVELS).flatten(1).float().to(chosen.device)
    settings = [Setting(s.batch, s.lr, s.seeds[:1]) for s in SETTINGS] if chosen.quick else SETTINGS
    results = compare(data, settings, chosen.backend)
    passed = report(results)
    stream = settings[-1]
    plain, norm = (run.model for run in results[stream][0])
    save(plot(results, "Tied ReLU auto-encoder, 1,088-128-1,088, one-hot digits"), chosen.out, "digits_autoencoder.png")
    title = f"Digits of the training set and their reconstructions, {stream}, after two epochs"
    figure = plot_reconstructions(images[:10], plain, norm, data[:10], title)
    save(figure, chosen.out, "digits_reconstructions.png")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
