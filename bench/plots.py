"""One PNG for each op and dtype: the share of a copy's speed, forward and backward, one bar per provider."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from .machine import line
from .report import Row

COLOURS = {"native": "#0b6e4f", "triton": "#1f5fbf", "reference": "#9c6ade",
           "torch": "#d1495b", "compile": "#edae49", "liger": "#66a182"}  # fmt: skip
LABELS = {"torch": "torch eager", "compile": "torch.compile"}


def write_plots(folder: Path, rows: list[Row], about: dict) -> list[Path]:
    """The paths of the plots written."""
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    timed = [r for r in rows if r.us and r.gb_s]
    figures = dict.fromkeys((r.op, r.dtype, r.threads) for r in timed)
    return [_figure(folder, key, [r for r in timed if (r.op, r.dtype, r.threads) == key], about) for key in figures]


def _figure(folder: Path, key: tuple, rows: list[Row], about: dict) -> Path:
    op, dtype, threads = key
    modes = list(dict.fromkeys(r.mode for r in rows))
    shapes = list(dict.fromkeys(r.shape for r in rows))
    size = (max(5.2, 1.3 + 1.1 * len(shapes)) * len(modes), 4.2)
    figure, axes = plt.subplots(1, len(modes), figsize=size, sharey=True, squeeze=False)
    for axis, mode in zip(axes[0], modes, strict=True):
        _bars(axis, shapes, [r for r in rows if r.mode == mode])
        beyond = f"copy beyond caches, {about['copy_gb_s']}"
        axis.axhline(about["copy_gb_s"], color="#222222", linestyle=":", lw=0.8, label=beyond)
        axis.set_title({"fwd": "forward", "bwd": "backward"}.get(mode, mode), fontsize=11, loc="left")
    axes[0][0].set_ylabel("GB/s (minimum bytes / time)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(f"{op}, {dtype}", x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.text(0.01, 0.005, line(about), fontsize=6.5, color="#666666")
    figure.tight_layout(rect=(0, 0.02, 1, 0.98))
    name = f"{op}-{dtype}" + (f"-{threads}threads" if threads > 1 else "")
    path = folder / f"{name.replace('+', '_')}.png"
    figure.savefig(path, dpi=160)
    plt.close(figure)
    return path


def _bars(axis, shapes: list[str], rows: list[Row]) -> None:
    by_provider = {}
    for row in rows:
        by_provider.setdefault(row.backend, {})[row.shape] = row
    copy = by_provider.pop("copy", {})
    width = 0.8 / max(len(by_provider), 1)
    for i, (name, found) in enumerate(by_provider.items()):
        at = [j - 0.4 + width * (i + 0.5) for j, s in enumerate(shapes) if s in found]
        values = [found[s].gb_s for s in shapes if s in found]
        bars = axis.bar(at, values, width * 0.92, color=COLOURS.get(name), label=LABELS.get(name, name), zorder=2)
        shares = [f"{found[s].copy_percent:.0f}%" if found[s].copy_percent else "" for s in shapes if s in found]
        axis.bar_label(bars, shares, fontsize=6.5, color="#444444", padding=1)
    for j, shape in enumerate(shapes):
        if shape in copy:
            label = "copy of the same bytes" if j == 0 else None
            axis.hlines(copy[shape].gb_s, j - 0.46, j + 0.46, colors="#222222", linestyles="--", lw=1.2, label=label)
    axis.set_xticks(range(len(shapes)), shapes, fontsize=8)
    axis.grid(axis="y", color="#e4e4e4", lw=0.8, zorder=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)
