"""Result files of the claims: one measured number a line, in a few columns that are the same everywhere.

machines.json beside them says which processor, torch and normkernels made each.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

import normkernels as nk
from normkernels.info import cpu

MACHINES = "machines.json"
FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Number:
    """``arm``: what was compared; ``at``: the epoch, step, layer, ... that it was taken at, if any."""

    data: str
    arm: str
    quantity: str
    value: float
    seed: int = 0
    at: float = 0


class Results:
    """The numbers of one file; every question about a number that is not there is an error."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        self.numbers = list(numbers)

    def on(self, data: str) -> "Results":
        """Those of one data set, by the start of its name."""
        return Results(n for n in self.numbers if n.data.startswith(data))

    @property
    def data(self) -> str:
        """The name of the data, all of which must be of one."""
        (name,) = {n.data for n in self.numbers}
        return name

    def arms(self, quantity: str) -> list[str]:
        return list(dict.fromkeys(n.arm for n in self.numbers if n.quantity == quantity))

    def at(self, arm: str, quantity: str) -> list[float]:
        """Where it was taken, in rising order."""
        return sorted({n.at for n in self.numbers if (n.arm, n.quantity) == (arm, quantity)})

    def values(self, arm: str, quantity: str, at: float | None = None) -> list[float]:
        """One for each seed, at the last place where nothing else is said."""
        places = self.at(arm, quantity)
        if not places:
            raise KeyError(f"no {quantity!r} of {arm!r} among these results")
        at = places[-1] if at is None else at
        return [n.value for n in self.numbers if (n.arm, n.quantity, n.at) == (arm, quantity, at)]

    def mean(self, arm: str, quantity: str, at: float | None = None) -> float:
        return fmean(self.values(arm, quantity, at))

    def curve(self, arm: str, quantity: str) -> list[float]:
        """The means over the seeds at all places."""
        return [self.mean(arm, quantity, at) for at in self.at(arm, quantity)]

    def show(self, arm: str, quantity: str, digits: int = 1, at: float | None = None) -> str:
        """``mean ± standard deviation over the seeds``, the value of the only one, or that one is not finite."""
        values = self.values(arm, quantity, at)
        if not all(map(isfinite, values)):
            return "not finite"
        mean = f"{fmean(values):.{digits}f}"
        return f"{mean} ± {stdev(values):.{digits}f}" if len(values) > 1 else mean


def read(name: str, folder: Path | None = None) -> Results:
    """``name``.csv, of the committed results where no other folder is named."""
    kinds = {"value": float, "seed": int, "at": float}
    with ((folder or FOLDER) / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [
            {key: kinds.get(key, str)(text) for key, text in row.items()} for row in csv.DictReader(file)
        ]
    return Results(Number(**row) for row in rows)


def write(numbers: Iterable[Number], folder: Path, name: str) -> Path:
    """Six digits of every number, so that a file can be read and compared; and what machine it was made on."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Number)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(n), "value": f"{n.value:.6g}", "at": f"{n.at:g}"} for n in numbers)
    made = {**machines(folder), name: machine()}
    (folder / MACHINES).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, str]:
    """What a number may depend on beyond its command."""
    found = {"cpu": cpu()["model"], "threads": str(torch.get_num_threads()), "torch": torch.__version__}
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {**found, **gpu, "normkernels": nk.__version__}


def machines(folder: Path | None = None) -> dict[str, dict[str, str]]:
    """By the name of a result file what made it; a file that was written before this was recorded has no entry."""
    path = (folder or FOLDER) / MACHINES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
