"""Ten and twenty hidden layers on real digits, down to batches of one: NormProp beside batch norm, layer norm, none.

NormProp takes no statistic from the data: its constants follow from the activation. Every arm starts from the same
weights, sees the same batches and is tried at the same learning rates.
"""

import sys
from dataclasses import dataclass
from itertools import product
from statistics import mean, median

import torch
from _common import console, options, save, tidy
from _mlp import BATCH, LAYER, NONE, NORMPROP, UNIT_GAIN, Data, Run, digits, network, train
from _results import Number, write
from _stream import refusal
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

ARMS = (NONE, BATCH, LAYER, NORMPROP)
DEPTH, DEEPER = 10, 20


@dataclass(frozen=True)
class Setting:
    batch: int
    epochs: int
    rates: tuple[float, ...]

    def quick(self) -> "Setting":
        """A quarter of the epochs, and only the second rate."""
        return Setting(self.batch, max(1, self.epochs // 4), self.rates[1:2])

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(arm for arm in ARMS if self.batch > 1 or arm != BATCH)


SETTINGS = [
    Setting(1, 2, (1e-4, 3e-4, 1e-3)),
    Setting(16, 8, (0.003, 0.01, 0.03)),
    Setting(64, 20, (0.003, 0.01, 0.03, 0.1)),
]
Results = dict[tuple[int, float, str], list[Run]]  # by batch, rate and arm, one for each seed


def compare(settings: list[Setting], seeds: list[int], data: Data, backend: str | None) -> Results:
    results: Results = {}
    turns = [(s, rate, seed) for s in settings for rate, seed in product(s.rates, seeds)]
    for s, rate, seed in track(turns, "training", console=console, transient=True):
        models = [network(arm, DEPTH, seed, backend).to(data.images.device) for arm in s.arms]
        for arm, run in zip(s.arms, train(models, data, s.batch, rate, s.epochs, seed), strict=True):
            results.setdefault((s.batch, rate, arm), []).append(run)
    return results


def numbers(results: Results, seeds: list[int]) -> list[Number]:
    """The batch is part of the data's name; ``at`` is the learning rate."""
    pairs = [(key, seed, run) for key, runs in results.items() for seed, run in zip(seeds, runs, strict=True)]
    return [
        Number(f"digits, batches of {b}", arm, "% right", 100 * r.accuracy, s, rate) for (b, rate, arm), s, r in pairs
    ]


def accuracy(runs: list[Run]) -> float:
    return mean(run.accuracy for run in runs)


def report(settings: list[Setting], results: Results) -> None:
    """A row for each batch size and rate, and what a step took."""
    title = f"{DEPTH} hidden layers: % of 500 test images right, by batch size and learning rate"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("batch", "rate", *ARMS):
        table.add_column(column, justify="right", no_wrap=True)
    for s in settings:
        refused = ["refused"] if s.batch == 1 else []
        for rate in s.rates:
            right = {arm: f"{100 * accuracy(results[s.batch, rate, arm]):.1f}" for arm in s.arms}
            table.add_row(str(s.batch), f"{rate:g}", *(right.get(arm, *refused) for arm in ARMS))
        runs = {arm: [run for rate in s.rates for run in results[s.batch, rate, arm]] for arm in s.arms}
        times = {arm: f"{1e3 * median(run.seconds for run in found):.2f}" for arm, found in runs.items()}
        table.add_row("", "ms a step", *(times.get(arm, "-") for arm in ARMS), style="dim", end_section=True)
    console.print(table)
    console.print(f"batch norm at batch size 1: {refusal()}", highlight=False, soft_wrap=True)


def single_samples(results: Results) -> bool:
    """Whether NormProp learns from single samples where the network without a norm does not yet."""
    rate = SETTINGS[0].rates[1]
    ours, none = (accuracy(results[1, rate, arm]) for arm in (NORMPROP, NONE))
    passed = ours >= 0.85 and ours >= none + 0.2
    return _verdict(f"single samples, {rate:g}", ours, none, "none", "85 %, and 20 points more", passed)


def jacobian_factor(data: Data, seeds: list[int], backend: str | None) -> bool:
    """Whether twenty layers want the gain that keeps the gradient's size."""
    arms, found = (NORMPROP, UNIT_GAIN), []
    for seed in track(seeds, f"{DEEPER} layers", console=console, transient=True):
        models = [network(arm, DEEPER, seed, backend).to(data.images.device) for arm in arms]
        found.append(train(models, data, 64, 0.01, 20, seed))
    ours, unit = (accuracy(list(runs)) for runs in zip(*found, strict=True))
    text = f"{DEEPER} layers, batches of 64, 0.01, gain 1 / jacobian_factor"
    return _verdict(text, ours, unit, "gain 1", "10 points more", ours >= unit + 0.1)


def _verdict(text: str, ours: float, other: float, name: str, bar: str, passed: bool) -> bool:
    verdict = "[green]passed[/]" if passed else "[red]missed[/]"
    shown = f"{text}: NormProp {100 * ours:.1f} %, {name} {100 * other:.1f} % (bar: {bar}): {verdict}"
    console.print(shown, highlight=False, soft_wrap=True)
    return passed


def plot(runs: dict[str, Run], text: str) -> Figure:
    """The mean of what enters a layer, one unit of each, epoch by epoch: figure 2 of the paper."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(runs), sharey=True)
    units = torch.randint(64, (DEPTH,), generator=torch.Generator().manual_seed(0))
    colours = colormaps["viridis"](torch.linspace(0, 0.95, DEPTH).numpy())
    for axes, (arm, run) in zip(panels, runs.items(), strict=True):
        means = torch.stack(run.means).cpu()  # (epochs, depth, width)
        epochs = range(1, len(means) + 1)
        for i, (unit, colour) in enumerate(zip(units, colours, strict=True)):
            name = "output" if i + 1 == DEPTH else str(i + 2)
            axes.plot(epochs, means[:, i, unit], color=colour, linewidth=1.6, label=name)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=f"{arm} (all units, at the end: |mean| {means[-1].abs().mean():.2f})", xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        tidy(axes)
    panels[0].set_ylabel("mean over the test images")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="input of layer", frameon=False, loc="outside right center")
    figure.suptitle(
        f"What enters each layer: the mean of one of its units, chosen at random ({text})", fontsize="medium"
    )
    return figure


def main() -> int:
    chosen = options(__doc__, {"--seeds": {"type": int, "nargs": "+", "default": [0, 1], "help": "one run for each"}})
    settings = [s.quick() for s in SETTINGS] if chosen.quick else SETTINGS
    data = digits(chosen.device)
    results = compare(settings, chosen.seeds, data, chosen.backend)
    report(settings, results)
    passed = chosen.quick or all([single_samples(results), jacobian_factor(data, chosen.seeds, chosen.backend)])
    console.print(f"results: {write(numbers(results, chosen.seeds), chosen.out, 'digits_normprop')}")
    rate = SETTINGS[-1].rates[1]
    shown = {arm: results[64, rate, arm][0] for arm in (NORMPROP, BATCH)}
    save(plot(shown, f"{DEPTH} hidden layers, batches of 64, {rate:g}"), chosen.out, "digits_normprop.png")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
