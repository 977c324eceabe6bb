"""Learning from a stream of single samples, with and without a norm: real digits, and real measurements of tumours.

Every sample is predicted, then learnt from, once; every arm is tried with the same learning rates. Digits are divided
by 16; the 30 measurements of a tumour are taken as they are, though their scales differ by a factor of 10^5.
"""

import os
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context

import torch
from _common import GREY, RED, console, options, save, tidy
from _stream import Arm, Stream, arms, learn, refusal
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table
from rich.text import Text
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor

MARGIN = 0.1
WINDOW = 100  # samples that the plotted accuracy is averaged over
COLOURS = (GREY, "#edae49", "#66a182", RED, "#e8a0b0", "#1f5fbf", "#7fb2e5")
PLAIN, ONLINE = "none", "online norm"


@dataclass(frozen=True)
class Result:
    """``right[arm, rate]``: (seeds, samples), 1 where the answer was right."""

    stream: Stream
    right: dict[tuple[str, float], Tensor]

    def accuracy(self, arm: str, rate: float) -> float:
        return self.right[arm, rate].mean().item()

    def best(self, arm: str) -> float:
        """The learning rate with the highest accuracy."""
        return max(self.stream.rates, key=lambda rate: self.accuracy(arm, rate))

    def trains(self, arm: str, rate: float) -> bool:
        """Whether the second half is answered clearly better than by guessing."""
        right = self.right[arm, rate]
        return right[:, right.shape[1] // 2 :].mean().item() > self.stream.guess + MARGIN

    @property
    def too_fast(self) -> float | None:
        """The lowest learning rate beyond its best one at which the plain network does not train."""
        beyond = (rate for rate in self.stream.rates if rate > self.best(PLAIN))
        return next((rate for rate in beyond if not self.trains(PLAIN, rate)), None)

    @property
    def passed(self) -> bool:
        """Online norm is at least as good as the plain network, each at its best, and trains where that does not."""
        best = self.accuracy(ONLINE, self.best(ONLINE)) >= self.accuracy(PLAIN, self.best(PLAIN))
        return best and self.too_fast is not None and self.trains(ONLINE, self.too_fast)


def streams() -> list[Stream]:
    """Both data sets, shuffled once."""

    def shuffled(name: str, found, scale: float, rates: tuple[float, ...]) -> Stream:
        order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
        samples, labels = torch.tensor(found.data, dtype=torch.float32) / scale, torch.tensor(found.target)
        return Stream(name, samples[order], labels[order], rates)

    return [
        shuffled("digits, divided by 16", load_digits(), 16, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
        shuffled("breast cancer, raw", load_breast_cancer(), 1, (1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.1)),
    ]


def run(pool: Executor, stream: Stream, tried: list[Arm], seeds: int, device: str) -> Result:
    found = {
        (arm.name, rate): [pool.submit(learn, arm, stream, rate, seed, device) for seed in range(seeds)]
        for arm, rate in product(tried, stream.rates)
    }
    shown = track(found.items(), stream.name, console=console, transient=True)
    return Result(stream, {key: torch.tensor([f.result() for f in each], dtype=torch.float) for key, each in shown})


def report(result: Result, tried: list[Arm]) -> None:
    """A row for each arm, a column for each rate, and the two bars."""
    stream, too_fast = result.stream, result.too_fast
    title = (
        f"{stream.name}: {len(stream.labels)} samples, {100 * stream.guess:.0f} % right by guessing\n"
        "% right by learning rate. Bold: the best of its arm; red: does not train,\n"
        f"its second half is less than {100 * MARGIN:.0f} points above guessing"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("norm", no_wrap=True)
    for rate in stream.rates:
        table.add_column(f"{rate:g}", justify="right", no_wrap=True)
    for arm in tried:
        table.add_row(arm.name, *(_cell(result, arm.name, rate) for rate in stream.rates))
    console.print(table)
    best = {arm: f"{100 * result.accuracy(arm, result.best(arm)):.1f} %" for arm in (PLAIN, ONLINE)}
    console.print(f"each at its best rate: online norm {best[ONLINE]}, none {best[PLAIN]}", highlight=False)
    if too_fast is not None:
        found = ", ".join(f"{arm} {100 * result.accuracy(arm, too_fast):.1f} %" for arm in (ONLINE, PLAIN))
        console.print(f"at {too_fast:g}, where the network without a norm does not train: {found}", highlight=False)
    console.print("[green]passed[/]" if result.passed else "[red]missed[/]")


def _cell(result: Result, arm: str, rate: float) -> Text:
    weight = "bold" if rate == result.best(arm) else "not bold"
    colour = "default" if result.trains(arm, rate) else "red"
    return Text(f"{100 * result.accuracy(arm, rate):.1f}", f"{weight} {colour}")


def plot(results: list[Result], tried: list[Arm]) -> Figure:
    """Accuracy over samples seen: above each arm at its best rate, below all of them at the rate that is too fast."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    for (best, fast), result in zip(figure.subplots(2, len(results)).T, results, strict=True):
        rate = result.too_fast or result.stream.rates[-1]
        _lines(best, result, {arm.name: result.best(arm.name) for arm in tried})
        _lines(fast, result, {arm.name: rate for arm in tried})
        best.set_title(f"{result.stream.name}: each at its best rate")
        fast.set(title=f"{result.stream.name}: all at {rate:g}", xlabel="samples seen")
        best.legend(frameon=False, fontsize="small", loc="lower right")
    figure.suptitle("Single samples, predicted, then learnt from, once (batch renorm and streaming norm: pairs)")
    return figure


def _lines(axes, result: Result, rates: dict[str, float]) -> None:
    for (arm, rate), colour in zip(rates.items(), COLOURS, strict=True):
        right = result.right[arm, rate].mean(0)
        window = torch.nn.functional.avg_pool1d(right[None], WINDOW, 1)[0]
        width = 2.4 if arm == ONLINE else 1.3
        axes.plot(range(WINDOW, len(right) + 1), 100 * window, color=colour, linewidth=width, label=f"{arm}, {rate:g}")
    axes.set(ylim=(0, 102), ylabel=f"% right of the last {WINDOW}")
    tidy(axes)


def main() -> int:
    chosen = options(__doc__)
    tried = arms(chosen.backend)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (chosen.threads,)) as pool:
        results = [run(pool, stream, tried, 1 if chosen.quick else 3, chosen.device) for stream in streams()]
    for result in results:
        report(result, tried)
    console.print(
        "online norm: as in the paper, by the defaults (alpha_fwd 0.999, alpha_bkw 0.99, layer scaling); "
        "this is what is judged;\nbatch renorm: bounds ramp up a hundred times as fast as by default "
        f"(there are few steps), momentum 0.03; streaming norm: the defaults\nbatch norm: {refusal()}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    save(plot(results, tried), chosen.out, "digits_stream.png")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
