"""NormProp, batch norm, no norm, and changes of NormProp's recipe, each at the best of a few rates.

The net and recipe of normprop_figures.py, in batches of 50; a rate is chosen by a fifth of the training images. Beside
that: how far batch norm's running statistics are from those of a batch after each epoch.
"""

import argparse
import sys
from collections.abc import Generator
from functools import partial

from _common import experiment, images, main, options
from _console import table
from _data import Images
from _figures import ACCURACY, DRIFT, LAYERS, MEAN, TRAINED, Setting, learn, numbers, over
from _jobs import VALIDATION, Job, run, tuned, validated
from _nin import NONE, OURS, RATE
from _plots import PAPER, legend, panels, whole
from _results import Number, Results
from matplotlib.figure import Figure
from torch.optim import RMSprop

NAME = "normprop_rates"
RATE_USED = "rate"
NORMPROP, BN, PLAIN, RMS, SLOW, FREE, BY_BATCHES, UNSHUFFLED = ARMS = (
    "NormProp", "batch norm", "no norm", "NormProp by RMSprop", "NormProp, no momentum",
    "NormProp, filters of any length", "NormProp, batch data norm", "NormProp, batch data norm, not shuffled",
)  # fmt: skip
SETTINGS = {
    NORMPROP: Setting(), BN: Setting(OURS), PLAIN: Setting(NONE), RMS: Setting(kind=RMSprop), SLOW: Setting(momentum=0),
    FREE: Setting(unit=False), BY_BATCHES: Setting(mode="batch"), UNSHUFFLED: Setting(mode="batch", shuffled=False),
}  # fmt: skip
SGD_RATES = (0.01, 0.025, 0.05, 0.1)
RATES = {
    **dict.fromkeys((NORMPROP, BN, FREE, BY_BATCHES, UNSHUFFLED), SGD_RATES),
    PLAIN: (0.0001, 0.001, 0.01, 0.1, 0.3), RMS: (0.0001, 0.0003, 0.001, 0.003), SLOW: (0.05, 0.1, 0.2, 0.5),
}  # fmt: skip
FOLLOWED = (NORMPROP, BN, PLAIN)


def last(*arguments) -> Generator[None, None, float]:
    """The % right at the end of ``learn(*arguments)``."""
    found = yield from learn(*arguments)
    return found.accuracy[-1]


def measure(chosen: argparse.Namespace) -> list[Number]:
    data = images(chosen)

    def job(start, name: str, data: Images, rate: float, seed: int) -> Job:
        steps = chosen.epochs * (len(data.labels) // SETTINGS[name].batch)
        return Job(steps, partial(start, SETTINGS[name], data, rate, chosen.epochs, seed, name in FOLLOWED))

    held = data.held_out()
    rates, trials = tuned(chosen, RATES, lambda arm, rate: job(last, arm, held, rate, chosen.seeds[0]))
    found = run({(name, seed): job(learn, name, data, rates[name], seed) for name in SETTINGS for seed in chosen.seeds})
    used = [Number(data.name, name, RATE_USED, rate) for name, rate in rates.items()]
    return [*validated(held.name, trials), *used, *numbers(data, found)]


def report(found: Results) -> None:
    held = Results(n for n in found.numbers if n.quantity == VALIDATION)
    rows = [[arm, ", ".join(f"{rate:g}: {held.mean(arm, VALIDATION, rate):.1f}" for rate in held.at(arm, VALIDATION))]
            for arm in held.arms(VALIDATION)]  # fmt: skip
    table("% right of the validation, by rate", ["", "seed of the first"], rows)
    rows = [[name, f"{found.mean(name, RATE_USED):g}", found.show(name, ACCURACY), found.show(name, TRAINED)]
            for name in found.arms(ACCURACY)]  # fmt: skip
    table("% right", ["", "rate", "test", "training"], rows)
    moved = bool(found.arms(DRIFT.format(LAYERS[0])))  # after a single epoch nothing has yet
    rows = [[name, f"{over(found, name, MEAN):.3f}", f"{over(found, name, DRIFT, last=False):.3f}" if moved else ""]
            for name in FOLLOWED]  # fmt: skip
    table("what enters layers", ["", "|mean|, at the end", "change of a mean, an epoch"], rows)


def plots(found: Results) -> dict[str, Figure]:
    figure, (right, rates) = panels(2, width=6.2, sharey=True)
    for i, name in enumerate(ARMS):
        epochs = found.at(name, ACCURACY)
        right.plot(epochs, found.curve(name, ACCURACY), "o-", color=f"C{i}", label=name)
        if name in FOLLOWED:  # of all there would be too many lines
            right.plot(epochs, [found.values(name, ACCURACY, at) for at in epochs], color=f"C{i}", linewidth=0.8)
        if name in found.arms(VALIDATION):
            rates.plot(found.at(name, VALIDATION), found.curve(name, VALIDATION), "o-", color=f"C{i}", label=name)
    rates.axvline(RATE, **PAPER, label=f"the paper's rate, {RATE}")
    right.set(title="each at its best rate (thin: seeds of three)", ylabel="% right", ylim=(0, 100))
    rates.set(title="of the validation, by rate", xscale="log")
    whole([right])
    rates.set_xlabel("learning rate")
    legend(figure, 3)
    used = Results(n for n in found.numbers if n.quantity == ACCURACY)
    figure.suptitle(used.data)
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__, experiment(epochs=5, images=2000)), measure, report, plots))
