"""The bars that predicted shares are held to, and of each miss what keeps it: bytes, launches or code.

A call has two limits. One is its share if its code cost nothing: its launches one after the other, each as long as its
bytes take or as one answer of memory. The other is its share if they had no more code than their formula needs
(``floor``). ``limits.csv`` has both of every miss, by what compiled it.
"""

import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .compiled import Code
from .floor import floor
from .times import H100, H200, LAUNCH, Device, Launched, copy, executed, least, moving, taken
from .work import CLUSTERED, calls, launched

TABLE = Path(__file__).with_name("limits.csv")
TRITON = "Triton 3.9" if CLUSTERED else "Triton 3.7"
LARGE = 30e6  # bytes moved, from which on a bar holds for channels and odd rows


class Bar(NamedTuple):
    """Least shares, H100 and H200."""

    h100: float
    h200: float


class Miss(NamedTuple):
    """A way of a call below its bar, by what compiled it: shares, H100 and H200, predicted and at either limit.

    instructions: executed, times what the formula needs. bytes, launches, needed, more: microseconds beyond a copy's on
    an H100, of what is moved again, of launches and their latency, of code that the formula needs, and of the rest.
    """

    by: str
    op: str
    shape: str
    way: str
    h100: float
    h200: float
    code_h100: float
    code_h200: float
    least_h100: float
    least_h200: float
    instructions: float
    bytes: float
    launches: float
    needed: float
    more: float


def bar(op: str, shape: tuple[int, ...], backward: bool) -> Bar | None:
    moved = (3 if backward else 2) * 2 * math.prod(shape)
    if op in ("layer_norm", "rms_norm"):
        M, N = shape
        if N % 8:
            return Bar(0.60 if backward else 0.75, 0.0) if moved >= LARGE else None
        if not backward:
            return Bar(0.93, 0.90)
        if (M, N) == (131072, 128) or N == 65536:
            return Bar(0.75, 0.65)
        return Bar(0.88, 0.80) if 1024 <= N <= 16384 else None
    if moved < LARGE:
        return None
    return Bar(0.60, 0.55) if op == "batch_norm" else Bar(0.70, 0.60)


def shares(op: str, device: Device, made: list[Launched], moved: float) -> list[float]:
    """Predicted, with no more code than the formula needs, and without any."""
    alone, needed = copy(device, moved), [floor(one, op != "rms_norm") for one in made]
    times = taken(device, made), taken(device, needed), sum(least(device, one.work) for one in made)
    return [alone / time for time in times]


def spent(op: str, made: list[Launched], moved: float) -> list[float]:
    """The last five fields of ``Miss``."""
    alone, needed = copy(H100, moved), [floor(one, op != "rms_norm") for one in made]
    best, code, took = sum(least(H100, one.work) for one in made), taken(H100, needed), taken(H100, made)
    busy = sum(moving(H100, one.work) for one in made)
    parts = busy - (alone - LAUNCH), best - LAUNCH - busy, code - best, took - code
    all_of, fewest = (sum(x.work.programs * x.warps * executed(x.code, x.work) for x in of) for of in (made, needed))
    return [round(all_of / fewest, 1), *(abs(round(1e6 * part, 1)) for part in parts)]


def miss(by: str, call: tuple[str, str, str], made: tuple[list[Launched], list[Launched]], moved: float) -> Miss | None:
    """call: op, shape and way; made: its launches on an H100 and an H200."""
    op, shape, way = call
    wanted = bar(op, tuple(map(int, shape.partition(":")[0].split("x"))), way == "backward")
    found = [shares(op, device, each, moved) for device, each in zip((H100, H200), made, strict=True)]
    rounded = [round(share, 2) for of_devices in zip(*found, strict=True) for share in of_devices]
    if wanted is None or (rounded[0] >= wanted.h100 and rounded[1] >= wanted.h200):
        return None
    return Miss(by, *call, *rounded, *spent(op, made[0], moved))


def misses(op: str, shapes: list[str], codes: dict[str, Code]) -> Iterator[Miss]:
    """Of Triton's kernels."""
    for shape in shapes:
        sizes, _, layout = shape.partition(":")
        ways: tuple[list[list[Launched]], ...] = [], []
        size = 0
        for device in (H100, H200):
            *both, size = calls(op, tuple(map(int, sizes.split("x"))), layout == "nhwc", device)
            for way, made in zip(ways, both, strict=True):
                way.append(launched(made, codes))
        for i, (way, (a, b)) in enumerate(zip(("forward", "backward"), ways, strict=True)):
            if found := miss(TRITON, (op, shape, way), (a, b), (2 + i) * size):
                yield found


def committed() -> list[Miss]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [Miss._make([*row[:4], *map(float, row[4:])]) for row in rows]


def told(by: str, found: list[Miss], write: bool) -> int:
    """Prints misses and, where it is wanted, writes them in place of those by the same; the exit status."""
    sys.stdout.write("".join(f"{line}\n" for line in found))
    if write:
        kept = [one for one in committed() if one.by != by] if TABLE.exists() else []
        with TABLE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Miss._fields, *sorted(kept + found)])
    return 0


def main(shapes: dict[str, list[str]], codes: dict[str, Code], write: bool) -> int:
    return told(TRITON, [one for op, of in shapes.items() for one in misses(op, of, codes)], write)
