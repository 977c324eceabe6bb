"""Learning from a stream of single samples, with and without a norm: images, and real measurements of tumours.

Every sample is predicted, then learnt from, once; every arm is tried with the same learning rates, and each also stands
at the input. The 30 measurements of a tumour are taken as they are, though their scales differ by a factor of 10^5.
Batch renorm and streaming norm get pairs. Online norm in the paper's own form is judged; ours stands beside it.
"""

import argparse
import sys
from functools import partial

import torch
from _common import experiment, images, main, options
from _console import table
from _jobs import Job, run
from _plots import legend, panels
from _results import Number, Results
from _stream import ARMS, ONLINE, PLAIN, Stream, learn
from matplotlib.figure import Figure
from torch import Tensor, nn

NAME = "stream"
RIGHT, HALF, LATELY, GUESS = "% right", "% right of the second half", "% right of the last {}", "% by guessing"
WINDOW, MARGIN = 100, 10  # samples that the plot is averaged over; points above guessing that count as learning
TUMOURS = "tumours as measured"
RATES = {True: (0.003, 0.01, 0.03, 0.1, 0.3), False: (1e-6, 1e-5, 0.001, 0.01, 0.03)}  # of images, and of tumours


def streams(chosen: argparse.Namespace) -> list[Stream]:
    """Images from 0 to 1, larger ones averaged down to 7x7, in their order; the tumours, shuffled once."""
    from sklearn.datasets import load_breast_cancer

    measurements, kinds = load_breast_cancer(return_X_y=True)
    data = images(chosen)
    pixels = data.images.float().mean(1) / (240 if data.images.shape[-1] == 8 else 255)
    pixels = nn.functional.adaptive_avg_pool2d(pixels, 7) if pixels.shape[-1] > 8 else pixels
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(0))[: chosen.images]
    measured, labels = torch.tensor(measurements, dtype=torch.float32)[order], torch.tensor(kinds)[order]
    name = data.name.rsplit(", ", 1)[0]
    return [
        Stream(name, pixels.flatten(1), data.labels, rates(chosen, True)),
        Stream(TUMOURS, measured.to(chosen.device), labels.to(chosen.device), rates(chosen, False)),
    ]


def rates(chosen: argparse.Namespace, of_images: bool) -> tuple[float, ...]:
    tried = RATES[of_images][1::2] if chosen.quick else RATES[of_images]
    return tried if chosen.rate is None else (chosen.rate,)


def lately(right: list[bool]) -> Tensor:
    """% right of the last WINDOW samples, at every tenth of a window."""
    means = nn.functional.avg_pool1d(100 * torch.tensor(right, dtype=torch.float)[None], WINDOW, WINDOW // 2)
    return means[0]


def measure(chosen: argparse.Namespace) -> list[Number]:
    """``at`` is the rate; of what came out right lately the sample, and the rate is part of the arm's name."""
    jobs, lines = {}, []
    for stream in streams(chosen):
        lines.append(Number(stream.name, PLAIN, GUESS, stream.guess))
        for arm, rate, seed in [(a, r, s) for a in ARMS for r in stream.rates for s in chosen.seeds]:
            steps = len(stream.labels) // ARMS[arm].batch
            jobs[stream.name, arm, rate, seed] = Job(steps, partial(learn, arm, stream, rate, seed))
    for (name, arm, rate, seed), right in run(jobs).items():
        half = right[len(right) // 2 :]
        for quantity, part in ((RIGHT, right), (HALF, half)):
            lines.append(Number(name, arm, quantity, 100 * sum(part) / len(part), seed, rate))
        for i, share in enumerate(lately(right).tolist()):
            at = WINDOW + i * (WINDOW // 2)
            lines.append(Number(name, f"{arm}, {rate:g}", LATELY.format(WINDOW), share, seed, at))
    return lines


def by_stream(found: Results) -> list[Results]:
    names = dict.fromkeys(n.data for n in found.numbers)
    return [Results(n for n in found.numbers if n.data == name) for name in names]


def best(found: Results, arm: str) -> float:
    """The rate with most right: all of a stream is a test, for it is predicted before it is learnt from."""
    return max(found.at(arm, RIGHT), key=lambda rate: found.mean(arm, RIGHT, rate))


def learns(found: Results, arm: str, rate: float) -> bool:
    """Whether the second half is answered clearly better than by guessing."""
    return found.mean(arm, HALF, rate) > found.mean(PLAIN, GUESS) + MARGIN


def too_fast(found: Results) -> float | None:
    """The lowest rate beyond its best one at which the plain network does not learn."""
    beyond = (rate for rate in found.at(PLAIN, RIGHT) if rate > best(found, PLAIN))
    return next((rate for rate in beyond if not learns(found, PLAIN, rate)), None)


def report(found: Results) -> None:
    """A row for each arm, a column for each rate."""
    for each in by_stream(found):
        places = each.at(PLAIN, RIGHT)
        rows = [[arm, *(each.show(arm, RIGHT, at=at) for at in places), f"{best(each, arm):g}"] for arm in ARMS]
        title = f"{each.data}: % right by rate, {each.mean(PLAIN, GUESS):.0f} by guessing"
        table(title, ["norm", *(f"{at:g}" for at in places), "best rate"], rows)


def plots(found: Results) -> dict[str, Figure]:
    """Over samples seen: above each arm at its best rate, below all at the rate that is too fast without a norm."""
    parts = by_stream(found)
    figure, axes = panels(len(parts), 2, width=6.2, height=3.6)
    for column, each in enumerate(parts):
        fast = too_fast(each) or each.at(PLAIN, RIGHT)[-1]
        shown = {"each at its best rate": None, f"all at {fast:g}": fast}
        for row, (title, rate) in enumerate(shown.items()):
            panel = axes[row * len(parts) + column]
            for i, arm in enumerate(ARMS):
                name = f"{arm}, {(best(each, arm) if rate is None else rate):g}"
                seen, curve = (f(name, LATELY.format(WINDOW)) for f in (each.at, each.curve))
                panel.plot(seen, curve, color=f"C{i}", label=arm, linewidth=3.4 if arm == ONLINE else 1.8)
            panel.axhline(each.mean(PLAIN, GUESS), color="black", linestyle=":", label="by guessing")
            panel.set(title=f"{each.data}: {title}", ylim=(0, 102))
            panel.title.set_fontsize(13)
    for panel in axes[-len(parts) :]:
        panel.set_xlabel("samples seen")
    for panel in axes[:: len(parts)]:
        panel.set_ylabel(f"% right of the last {WINDOW}")
    legend(figure, 3)
    figure.suptitle("Single samples, predicted, then learnt from, once (batch renorm, streaming norm: pairs)")
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    taken = ("--data", "--folder", "--images", "--seeds", "--rate")
    chosen = options(__doc__, {name: value for name, value in experiment(1, images=500).items() if name in taken})
    sys.exit(main(NAME, chosen, measure, report, plots))
