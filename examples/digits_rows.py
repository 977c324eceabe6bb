"""Real digits read row by row, or pixel by pixel, by recurrent layers with layer norm, batch norm, or none.

The state after the last step is classified; batches are large or small. Every layer is tried with the same learning
rates; batch norm is tried in its default form, and as it was first tried. Beside it, the time of an LSTM
with layer norm, forward and backward: as one call, and as a Python loop of cells, which must agree with it.
"""

import os
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from statistics import fmean

import torch
from _common import GREY, RED, console, options, save, tidy
from _rows import (
    BN_FIRST,
    BN_RNN,
    LN_LSTM,
    LN_RNN,
    PLAIN_LSTM,
    PLAIN_RNN,
    TRAINED,
    Reading,
    Run,
    learn,
)
from _rows_time import agreement, report_times
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table
from rich.text import Text

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
READINGS = [
    Reading("rows", 8, 32, 8, 2, RATES),
    Reading("rows", 8, 4, 4, 2, RATES),
    Reading("pixels", 1, 32, 10, 2, RATES[1::2]),  # these take the longest
]
QUICK = [Reading("rows", 8, 32, 4, 1, (0.03, 0.3)), Reading("rows", 8, 4, 1, 1, (0.03, 0.3))]
AGREEMENT, MARGIN = 1e-9, 0.3
BARS = [  # with layer norm, without, the learning rate, the batch: in rows, MARGIN more is right, with every seed
    (LN_LSTM, PLAIN_LSTM, 0.03, 32),
    (LN_LSTM, PLAIN_LSTM, 0.03, 4),
    (LN_RNN, PLAIN_RNN, 0.3, 4),
]
COLOURS = {PLAIN_LSTM: GREY, LN_LSTM: RED, PLAIN_RNN: GREY, LN_RNN: RED, BN_RNN: "#1f5fbf", BN_FIRST: "#edae49"}
WINDOW = 256  # images that the plotted loss is averaged over


@dataclass(frozen=True)
class Result:
    """``runs[arm, rate]``: one for each seed."""

    reading: Reading
    runs: dict[tuple[str, float], list[Run]]

    def best(self, arm: str) -> float:
        """The learning rate with the best validation."""
        return max(self.reading.rates, key=lambda rate: fmean(run.validation for run in self.runs[arm, rate]))

    def ahead(self, arm: str, other: str, rate: float) -> float:
        """How much more of the test is right, with the seed with which it is least."""
        pairs = zip(self.runs[arm, rate], self.runs[other, rate], strict=True)
        return min(run.test - other.test for run, other in pairs)


def run(pool: Executor, reading: Reading, device: str, backend: str | None) -> Result:
    found = {
        (arm, rate): [pool.submit(learn, reading, arm, rate, seed, device, backend) for seed in range(reading.seeds)]
        for arm, rate in product(COLOURS, reading.rates)
    }
    shown = track(found.items(), str(reading), console=console, transient=True)
    return Result(reading, {key: [future.result() for future in futures] for key, futures in shown})


def report(result: Result) -> None:
    """A row for each layer, a column for each rate; batch norm has a second row."""
    heading = f"{result.reading} (epochs: {result.reading.epochs}): % right of the test by learning rate"
    console.print(f"{heading}; bold: the best by validation", highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("layer", no_wrap=True)
    for rate in result.reading.rates:
        table.add_column(f"{rate:g}", justify="right", no_wrap=True)
    for arm in COLOURS:
        table.add_row(arm, *_cells(result, arm, "test"))
        if arm in (BN_RNN, BN_FIRST):
            table.add_row("  in training mode", *_cells(result, arm, "by_batch"))
    console.print(table)


def _cells(result: Result, arm: str, share: str) -> list[Text]:
    shares = {rate: fmean(getattr(run, share) for run in result.runs[arm, rate]) for rate in result.reading.rates}
    best = result.best(arm)
    return [Text(f"{100 * value:.1f}", "bold" if rate == best else "") for rate, value in shares.items()]


def passes(results: list[Result]) -> bool:
    """Whether layer norm trains where the plain layer does not."""
    found = {r.reading.batch: r for r in results if r.reading.name == "rows"}
    met = []
    for arm, plain, rate, batch in BARS:
        ahead = found[batch].ahead(arm, plain, rate)
        met.append(ahead >= MARGIN)
        verdict = "[green]passed[/]" if met[-1] else "[red]missed[/]"
        text = f"{arm} is {100 * ahead:.0f} points ahead of {plain}, bar {100 * MARGIN:.0f}"
        console.print(f"{found[batch].reading}, at {rate:g}: {text}: {verdict}", highlight=False, soft_wrap=True)
    return all(met)


def plot(results: list[Result]) -> Figure:
    """The loss over the epochs, each layer at its best rate: a row for each reading, LSTMs beside RNNs."""
    figure = Figure(figsize=(12, 3.2 * len(results)), layout="constrained")
    names = list(COLOURS)
    for panels, result in zip(figure.subplots(len(results), 2, sharey="row"), results, strict=True):
        for axes, family in zip(panels, (names[:2], names[2:]), strict=True):
            for arm in family:
                rate = result.best(arm)
                losses = torch.tensor([run.losses for run in result.runs[arm, rate]]).mean(0)
                losses = losses.view(-1, WINDOW // result.reading.batch).mean(1)
                epochs = [(k + 1) * WINDOW / TRAINED for k in range(len(losses))]
                axes.plot(epochs, losses, color=COLOURS[arm], linewidth=1.6, label=f"{arm}, {rate:g}")
            axes.set(title=str(result.reading), xlabel="epoch", ylim=(0, 2.6))
            axes.legend(frameon=False, fontsize="small")
            tidy(axes)
        panels[0].set_ylabel("cross-entropy")
    figure.suptitle("Digits read step by step: training loss, each layer at its best learning rate")
    return figure


def main() -> int:
    chosen = options(__doc__)
    apart = agreement(chosen.backend, chosen.device)
    verdict = "[green]passed[/]" if apart <= AGREEMENT else "[red]missed[/]"
    text = f"LayerNormLSTM and the loop of cells in float64: at most {apart:.0e} apart, bar {AGREEMENT:g}"
    console.print(f"{text}: {verdict}", highlight=False, soft_wrap=True)
    report_times(5 if chosen.quick else 15, chosen.backend, chosen.device)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (chosen.threads,)) as pool:
        readings = QUICK if chosen.quick else READINGS
        results = [run(pool, reading, chosen.device, chosen.backend) for reading in readings]
    for result in results:
        report(result)
    passed = passes(results)
    save(plot(results), chosen.out, "digits_rows.png")
    return 0 if passed and apart <= AGREEMENT else 1


if __name__ == "__main__":
    sys.exit(main())
