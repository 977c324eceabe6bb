"""An example from its command line to its files: options, images, results and plots."""

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from _console import console
from _data import DIGITS, Images, load
from _data import NAMES as DATA
from _plots import save
from _results import Number, Results, read, write
from matplotlib.figure import Figure

import normkernels as nk
from normkernels._backends import NAMES

QUICK: dict[str, Callable[[Any], Any]] = {
    "seeds": lambda seeds: seeds[:1], "epochs": lambda n: max(1, n // 5), "images": lambda n: min(n or 256, 256),
    "tested": lambda n: 128, "samples": lambda n: n // 5,
}  # fmt: skip


def options(description: str | None, more: Mapping[str, Mapping[str, Any]] | None = None) -> argparse.Namespace:
    """The options that every example takes, and ``more``, read from the command line; sets the number of threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for results and plots")
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument("--replot", action="store_true", help="measure nothing: show and draw what lies in --out")
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
    """The options of an example that trains; ``rate`` None: each arm has its own, and --rate is for all of them."""
    return {
        **DATA_OPTIONS,
        "--images": {"type": int, "default": images, "help": "how many of them to train with, at most"},
        "--tested": {"type": int, "default": 2000, "help": "how many to test with, at most"},
        "--seeds": {"type": int, "nargs": "+", "default": [0, 1, 2], "help": "one run for each"},
        "--epochs": {"type": int, "default": epochs, "help": "times through the images"},
        "--rate": {"type": float, "default": rate, "help": "learning rate" + "; of each arm its own" * (rate is None)},
    }


def images(chosen: argparse.Namespace, most: int | None = None) -> Images:
    """The images that ``experiment``'s options name, ``most`` to train with; how to get a set that is not here."""
    trained = min(chosen.images, most) if most else chosen.images
    try:
        return load(chosen.data, chosen.folder).first(trained, getattr(chosen, "tested", 0)).to(chosen.device)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error


def main(
    name: str,
    chosen: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Iterable[Number]],
    report: Callable[[Results], None],
    plots: Callable[[Results], Mapping[str, Figure]] = lambda found: {},
) -> int:
    """Measure, write ``name``.csv, show it and draw it; with --replot all of that but the first two."""
    if chosen.replot:
        found = read(name, chosen.out)
    else:
        with nk.use_backend(chosen.backend):
            found = Results(measure(chosen))
        console.print(f"results: {write(found.numbers, chosen.out, name)}")
    report(found)
    for file, figure in plots(found).items():
        save(figure, chosen.out, file)
    return 0
