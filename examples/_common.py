"""What every example shares: its arguments, the console, the colours, and where a plot is saved."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console

from normkernels.backends import NAMES

console = Console()
GREY, RED = "#8d99ae", "#d1495b"


def options(description: str, more: Mapping[str, Mapping[str, Any]] | None = None) -> argparse.Namespace:
    """The options that every example takes, and ``more``, read from the command line; sets the number of threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the plots")
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    parser.add_argument("--backend", choices=NAMES, help="kernels to use; the first that can run here if not given")
    # Matrices this small gain nothing from a second thread, and lose much when the machine is busy.
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    for name, settings in (more or {}).items():
        parser.add_argument(name, **settings)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    return chosen


def tidy(axes) -> None:
    """Axes with a light grid and no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=150)
    console.print(f"plot: {folder / name}")
