"""Batch norm in recurrent layers: what fails, what repairs it, and layer norm in small batches.

Images are read pixel by pixel (larger ones are first averaged down to 7x7) or row by row, and the last state is
classified. Pixel by pixel, all at one rate: batch norms from the first attempt to the one that works best, of the sum
or of each term, with one running statistic or one for each step, with gain 1 or 0.1, or of each step; tested with
running and with batch statistics. Row by row, at two rates: RNNs (--kinds LSTM: LSTMs) without a norm, with layer norm
and with batch norm, in batches of 32 and of 4.
"""

import argparse
import sys
from functools import partial

from _common import experiment, images, main, options
from _console import table
from _data import Images
from _jobs import Job, run
from _plots import GREY, RED, legend, panels
from _results import Number, Results
from _rows import PIXELS, ROWS, Parts, learn, sequences
from matplotlib.figure import Figure
from torch import nn

import normkernels as nk

NAME = "rnn_batch_norm"
EVAL, TRAIN = "% right, running statistics", "% right, batch statistics"
FIRST, STEPS, GAIN, REPAIRED, AFFINE = BATCH_NORMS = (
    "sum, one statistic, gain 1", "sum, statistics per step, gain 1",
    "sum, statistics per step, gain 0.1", "separate, statistics per step, gain 0.1",
    "the same, gain and bias per step",
)  # fmt: skip
PLAIN, LAYER, BATCH = "no norm", "layer norm", "batch norm"
KINDS, SIZES = ("RNN", "LSTM"), (32, 4)  # of the rows
LAYERS = {
    FIRST: partial(nk.BatchNormRNN, norm_terms="sum", max_steps=1, gain=1.0),
    STEPS: partial(nk.BatchNormRNN, norm_terms="sum", gain=1.0),
    GAIN: partial(nk.BatchNormRNN, norm_terms="sum", gain=0.1),
    REPAIRED: partial(nk.BatchNormRNN, norm_terms="separate", gain=0.1),
    AFFINE: partial(nk.BatchNormRNN, norm_terms="separate", gain=0.1, per_step_affine=True),
    (PLAIN, "RNN"): nn.RNN, (LAYER, "RNN"): nk.LayerNormRNN, (BATCH, "RNN"): nk.BatchNormRNN,
    (PLAIN, "LSTM"): nn.LSTM, (LAYER, "LSTM"): nk.LayerNormLSTM, (BATCH, "LSTM"): nk.BatchNormLSTM,
}  # fmt: skip
RATES = {"RNN": (0.03, 0.3), "LSTM": (0.3, 1.0)}


def job(arm, parts: Parts, batch: int, rate: float, epochs: int, seed: int) -> Job:
    return Job(epochs * (len(parts[0][1]) // batch), partial(learn, LAYERS[arm], parts, batch, rate, epochs, seed))


def by_pixel(chosen: argparse.Namespace, data: Images) -> list[Number]:
    """``at`` is the batch size."""
    parts = sequences(data, PIXELS)
    jobs = {(arm, seed): job(arm, parts, 32, chosen.rate, chosen.epochs, seed)
            for arm in BATCH_NORMS for seed in chosen.seeds}  # fmt: skip
    lines = []
    for (arm, seed), pair in run(jobs, f"runs {PIXELS}").items():
        name = f"{data.name}, {PIXELS}"
        lines += [Number(name, arm, q, v, seed, 32) for q, v in zip((EVAL, TRAIN), pair, strict=True)]
    return lines


def by_row(chosen: argparse.Namespace, data: Images) -> list[Number]:
    """The rate is part of the arm's name; ``at`` is the batch size."""
    parts, epochs = sequences(data, ROWS), max(1, chosen.epochs // 4)
    arms = [(norm, kind, rate) for kind in chosen.kinds for norm in (PLAIN, LAYER, BATCH) for rate in RATES[kind]]
    jobs = {
        (norm, kind, batch, rate, seed): job((norm, kind), parts, batch, rate, epochs, seed)
        for norm, kind, rate in arms
        for batch in SIZES
        for seed in chosen.seeds
    }
    lines = []
    for (norm, kind, batch, rate, seed), pair in run(jobs, f"runs {ROWS}").items():
        arm, name = named(norm, kind, rate), f"{data.name}, {ROWS}"
        lines += [Number(name, arm, q, v, seed, batch) for q, v in zip((EVAL, TRAIN), pair, strict=True)]
    return lines


def named(norm: str, kind: str, rate: float) -> str:
    return f"{norm}, rate {rate:g}" if kind == KINDS[0] else f"{norm}, {kind}, rate {rate:g}"


def measure(chosen: argparse.Namespace) -> list[Number]:
    data = images(chosen)
    return [*by_pixel(chosen, data), *by_row(chosen, data)]


def readings(found: Results) -> dict[str, Results]:
    return {reading: Results(n for n in found.numbers if n.data.endswith(reading)) for reading in (PIXELS, ROWS)}


def report(found: Results) -> None:
    for each in readings(found).values():
        places = sorted({n.at for n in each.numbers}, reverse=True)
        heads = [f"{q}, batch {at:g}" for at in places for q in (EVAL, TRAIN)]
        rows = [[arm, *(each.show(arm, q, at=at) for at in places for q in (EVAL, TRAIN))] for arm in each.arms(EVAL)]
        table(f"{each.data}; ± is the deviation over seeds", ["layer", *heads], rows)


def plots(found: Results) -> dict[str, Figure]:
    """The batch norms, side by side; below, the layers row by row."""
    figure, axes = panels(1, 2, width=11.5, height=4.2)
    results = readings(found)
    rows = [(arm, at) for at in SIZES for arm in results[ROWS].arms(EVAL)]
    bars = {PIXELS: [(arm, arm, 32) for arm in BATCH_NORMS],
            ROWS: [(f"{arm}, batches of {at}", arm, at) for arm, at in rows]}  # fmt: skip
    for each, (reading, shown) in zip(axes, bars.items(), strict=True):
        for i, (quantity, colour) in enumerate(((EVAL, RED), (TRAIN, GREY))):
            values = [results[reading].values(arm, quantity, at) for _, arm, at in shown]
            places = [k + 0.38 * i for k in range(len(shown))]
            means = [sum(v) / len(v) for v in values]
            each.barh(places, means, 0.36, color=colour, label=f"tested with {quantity[len('% right, ') :]}")
            for place, found_here in zip(places, values, strict=True):
                label = "each seed" if (i, place) == (0, 0) else None
                each.plot(found_here, [place] * len(found_here), "k.", markersize=5, label=label)
        each.set_yticks([k + 0.19 for k in range(len(shown))], [name for name, *_ in shown])
        each.axvline(10, color="black", linewidth=1.2, linestyle=":", label="by guessing")
        each.invert_yaxis()
        each.set(xlim=(0, 100), title=reading)
    axes[1].tick_params(axis="y", labelsize=11)
    for each in axes:
        each.set_xlabel("% of the test right")
    figure.set_size_inches(11.5, 12)
    legend(figure, 4)
    figure.suptitle(f"Norms in recurrent layers\n{results[ROWS].data.rsplit(', ', 1)[0]}")
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    kinds = {"nargs": "+", "choices": KINDS, "default": KINDS[:1], "help": "what reads row by row"}
    chosen = options(__doc__, {**experiment(epochs=10, rate=0.03), "--kinds": kinds})
    sys.exit(main(NAME, chosen, measure, report, plots))
