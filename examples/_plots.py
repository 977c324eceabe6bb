"""How every plot looks: readable at half its size, and its legend beside the lines, never over them."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
from _console import console
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY, RED, BLUE, GREEN, YELLOW = "#8d99ae", "#d1495b", "#1f5fbf", "#4f9a72", "#edae49"
PAPER = {"color": "black", "linewidth": 1.6, "linestyle": "--"}  # a value that a text gives
mpl.rcParams.update({
    "font.size": 14, "axes.titlesize": 15, "axes.labelsize": 14, "legend.fontsize": 13, "lines.linewidth": 2.4,
    "figure.titlesize": 15, "legend.frameon": False,
    "axes.prop_cycle": cycler(color=["#1f5fbf", "#d1495b", "#4f9a72", "#edae49", "#7a5195", "#8d99ae", "#4cc3d9",
                                     "#8c564b", "#e377c2", "#222222"]),
})  # fmt: skip


def panels(columns: int, rows: int = 1, width: float = 5.2, height: float = 4.4, sharey: bool = False):
    """A figure, and its axes from left to right, from above to below."""
    figure = Figure(figsize=(width * columns, height * rows + 1), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=sharey, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#e5e7eb", linewidth=0.8)
        each.set_axisbelow(True)
    return figure, list(axes.flat)


def whole(axes: Iterable[Axes], label: str = "epoch") -> None:
    """An axis of whole numbers, with few enough of them that they do not touch."""
    for each in axes:
        each.set_xlabel(label)
        each.locator_params(axis="x", integer=True, nbins=6)


def legend(figure: Figure, columns: int = 4, title: str | None = None) -> None:
    """One for all panels, below them; a name that several panels have stands there once."""
    names = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            names.setdefault(label, handle)
    figure.legend(list(names.values()), list(names), loc="outside lower center", ncols=columns, title=title)


def save(figure: Figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=120)
    console.print(f"plot: {folder / name}")
