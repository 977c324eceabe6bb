"""What every example shares: its arguments, the console, the colours, how long it takes, and plots."""

import argparse
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _data import DIGITS, Images, load
from _data import NAMES as DATA
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from normkernels._backends import NAMES

console = Console()
GREY, RED = "#8d99ae", "#d1495b"
QUICK: dict[str, Callable[[Any], Any]] = {
    "seeds": lambda seeds: seeds[:1], "epochs": lambda n: max(1, n // 5), "images": lambda n: 256,
    "tested": lambda n: 128, "samples": lambda n: n // 5,
}  # fmt: skip


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
    if chosen.quick:
        vars(chosen).update({name: QUICK[name](value) for name, value in vars(chosen).items() if name in QUICK})
    return chosen


DATA_OPTIONS: dict[str, dict[str, Any]] = {
    "--data": {"choices": DATA, "default": DIGITS, "help": "images to learn from"},
    "--folder": {"type": Path, "help": "where they lie, if not in data or where Debian puts them"},
    "--images": {"type": int, "help": "how many of them to train with, at most"},
    "--tested": {"type": int, "help": "how many to test with, at most"},
}


def experiment(epochs: int, rate: float | None = None, images: int = 10000) -> dict[str, dict[str, Any]]:
    """The options of an example that measures a claim; ``rate`` None: each arm has its own."""
    return {
        **DATA_OPTIONS,
        "--images": {"type": int, "default": images, "help": "how many of them to train with, at most"},
        "--tested": {"type": int, "default": 2000, "help": "how many to test with, at most"},
        "--seeds": {"type": int, "nargs": "+", "default": [0, 1, 2], "help": "one run for each"},
        "--epochs": {"type": int, "default": epochs, "help": "times through the images"},
        "--rate": {"type": float, "default": rate, "help": "learning rate"},
    }


def images(chosen: argparse.Namespace) -> Images:
    """The images that ``experiment``'s options name; a set that is not here ends the script with how to get it."""
    try:
        return load(chosen.data, chosen.folder).first(chosen.images, chosen.tested)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error


@dataclass(frozen=True)
class Job:
    """One training: ``start()`` makes a generator that yields after each step, and returns what it found."""

    steps: int
    start: Callable[[], Generator[None, None, Any]]


def run(jobs: Mapping[Any, Job]) -> dict[Any, Any]:
    """What each job found, one after the other: says how long it will take, then shows how far it is."""
    seconds = sum(job.steps * _step_time(job) for job in jobs.values())
    console.print(f"{len(jobs)} runs: about {_minutes(seconds)}", highlight=False)
    found, began = {}, time.perf_counter()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=sum(job.steps for job in jobs.values()))
        for key, job in jobs.items():
            steps = job.start()
            while key not in found:
                try:
                    next(steps)
                    bar.advance(task)
                except StopIteration as end:
                    found[key] = end.value
    console.print(f"took {_minutes(time.perf_counter() - began)}", highlight=False)
    return found


def _step_time(job: Job) -> float:
    """Seconds, from five steps after the first, which warms up."""
    steps, times = job.start(), []
    for _ in range(min(6, job.steps)):
        start = time.perf_counter()
        next(steps, None)
        times.append(time.perf_counter() - start)
    return median(times[1:] or times or [0.0])


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """The first column is of names, the others of numbers."""
    found = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, head in enumerate(heads):
        found.add_column(head, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        found.add_row(*row)
    console.print(found)


def tidy(axes) -> None:
    """Axes with a light grid and no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=150)
    console.print(f"plot: {folder / name}")
