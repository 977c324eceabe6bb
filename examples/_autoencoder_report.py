"""Table and plot of plain against layer-norm runs of the auto-encoder."""

import torch
from _autoencoder import Run, Setting
from _common import GREY, RED, console, tidy
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor


def met(setting: Setting, plain: Run, norm: Run) -> bool:
    low = all(b <= bar * a for a, b, bar in zip(plain.costs, norm.costs, setting.ratios, strict=True))
    return low and bool(norm.norms[-1] >= setting.growth * plain.norms[-1])


def report(results: dict[Setting, list[tuple[Run, Run]]]) -> bool:
    """Print a table per setting, a row per seed; whether every run meets its setting's bars."""
    for setting, pairs in results.items():
        bars = ", ".join(f"{bar:.2f}" for bar in setting.ratios)
        title = f"{setting}: LN/plain cost at most {bars}" + (
            f", ‖W‖ at least {setting.growth}x" * (setting.growth > 0)
        )
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name in ("seed", "plain cost", "LN cost", "LN/plain", "‖W‖", "LN/plain", "met"):
            table.add_column(name, justify="right", no_wrap=True)
        for seed, (plain, norm) in zip(setting.seeds, pairs, strict=True):
            costs = (", ".join(f"{c:.1f}" for c in run.costs) for run in (plain, norm))
            ratio = ", ".join(f"{b / a:.3f}" for a, b in zip(plain.costs, norm.costs, strict=True))
            w, v = plain.norms[-1].item(), norm.norms[-1].item()
            verdict = "[green]yes[/]" if met(setting, plain, norm) else "[red]no[/]"
            table.add_row(str(seed), *costs, ratio, f"{w:.1f}, {v:.1f}", f"{v / w:.2f}", verdict)
        console.print(table)
    return all(met(setting, *pair) for setting, pairs in results.items() for pair in pairs)


def smooth(values: Tensor, width: int) -> Tensor:
    """Means of consecutive ``width`` steps."""
    return values[: len(values) // width * width].view(-1, width).mean(1)


def plot(results: dict[Setting, list[tuple[Run, Run]]], title: str) -> Figure:
    """Cost against samples seen, one panel per setting, and the growth of ‖W‖."""
    figure = Figure(figsize=(4.4 * (len(results) + 1) + 2, 4.2), layout="constrained")
    *panels, growth = figure.subplots(1, len(results) + 1)
    for axes, (setting, pairs), style in zip(panels, results.items(), ("-", "--", ":"), strict=False):
        for index, (name, colour) in enumerate((("plain", GREY), ("layer norm", RED))):
            for number, pair in enumerate(pairs):
                run, width = pair[index], max(1, 64 // setting.batch)
                cost = smooth(run.losses, width)
                label = None if number else f"{name}: " + ", ".join(f"{c:.1f}" for c in run.costs)
                seen = torch.arange(1, len(cost) + 1) * width * setting.batch
                axes.plot(seen, cost, color=colour, linewidth=1.2, alpha=0.75, label=label)
            label = f"{'LN' if index else 'plain'}, {setting}"
            norms = torch.stack([pair[index].norms for pair in pairs]).mean(0)
            seen = torch.arange(1, len(norms) + 1) * setting.batch
            growth.plot(seen, norms, color=colour, linestyle=style, linewidth=1.6, label=label)
        axes.set(title=str(setting), xlabel="samples seen", ylabel="cross-entropy per sample", yscale="log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())
        axes.legend(title="mean of each epoch", frameon=False)
    growth.set(title="growth of the weights", xlabel="samples seen", ylabel="‖W‖")
    growth.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    for axes in (*panels, growth):
        tidy(axes)
    figure.suptitle(title, fontsize="medium")
    return figure
