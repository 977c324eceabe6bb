"""Which bars hold, by what is committed: ``python -m bench.model.kept`` prints a table, and what keeps each miss.

Of Triton as it is pinned, of the newest one that is supported, and of CUDA; of that, rows that 128-bit accesses divide,
and the planes that clusters hold.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import bars, cuda_channels, cuda_rows
from .bars import Bar, bar

HERE = Path(__file__).parent
ROWS = "layer_norm", "rms_norm"
TOLD = {"Triton 3.9": ("Triton 3.7", "Triton 3.9"), "CUDA": ("CUDA",)}  # of each source, what compiled its kernels


class Shares(NamedTuple):
    """A way of a call, H100 and H200."""

    op: str
    shape: str
    way: str
    h100: float
    h200: float


def read(name: str) -> dict[tuple[str, ...], Shares]:
    """Of a table that has both ways in a line."""
    with (HERE / name).open(newline="") as file:
        lines = list(csv.DictReader(file))
    ways = [
        Shares(r["op"], r["shape"], w, float(r[f"{w}_h100"]), float(r[f"{w}_h200"]))
        for r in lines for w in ("forward", "backward")
    ]  # fmt: skip
    return {found[:3]: found for found in ways}


def sources() -> dict[str, list[Shares]]:
    pinned, newest = read("predicted.csv"), read("clustered.csv")
    planes = [Shares(c.op, c.shape, c.way, c.h100, c.h200) for c in cuda_channels.committed()]
    cuda = [*read(cuda_rows.TABLE.name).values(), *planes]
    return {"Triton 3.7": list(pinned.values()), "Triton 3.9": list((pinned | newest).values()), "CUDA": cuda}


def label(found: Shares) -> tuple[str, Bar] | None:
    """What a bar is of, and the bar."""
    op, shape, way = found[:3]
    sizes = tuple(map(int, shape.partition(":")[0].split("x")))
    wanted = bar(op, sizes, way == "backward")
    if wanted is None:
        return None
    kind = op.removesuffix("_norm").replace("layer", "rows").replace("rms", "rows")
    kind = "odd rows" if op in ROWS and sizes[1] % 8 else kind
    bars = f"{wanted.h100:.2f}/{wanted.h200:.2f}" if wanted.h200 else f"{wanted.h100:.2f}"
    return f"{kind} {way}, {bars}", wanted


def holds(found: Shares, wanted: Bar) -> bool:
    return found.h100 >= wanted.h100 and found.h200 >= wanted.h200


def table() -> Iterator[str]:
    """How many shapes hold each bar, of how many."""
    counts: dict[str, dict[str, list[bool]]] = {}
    for source, every in sources().items():
        for found in every:
            if named := label(found):
                counts.setdefault(named[0], {}).setdefault(source, []).append(holds(found, named[1]))
    yield f"| bar | {' | '.join(sources())} |"
    yield "|---" * (1 + len(sources())) + "|"
    for name in sorted(counts):
        cells = [counts[name].get(source) for source in sources()]
        yield f"| {name} | {' | '.join(f'{sum(c)} of {len(c)}' if c else '' for c in cells)} |"


def misses(source: str) -> Iterator[str]:
    """A table of what keeps each: predicted, by the code that the formula needs, without code; then what takes time."""
    below = {found[:3] for found in sources()[source] if (named := label(found)) and not holds(found, named[1])}
    known = {one[1:4]: one for by in TOLD[source] for one in bars.committed() if one.by == by}
    yield f"| {source} | predicted | needed code | no code | instructions | bytes, launches, needed code, the rest |"
    yield "|---" * 6 + "|"
    for key in sorted(below):
        one = known[key]
        pairs = (one.h100, one.h200), (one.code_h100, one.code_h200), (one.least_h100, one.least_h200)
        cells = [f"{a:.2f}/{b:.2f}".replace("0.", ".") for a, b in pairs]
        cells += [f"{one.instructions:.1f}", f"{one.bytes}, {one.launches}, {one.needed}, {one.more}"]
        yield f"| {one.op.removesuffix('_norm')} {one.shape} {one.way} | {' | '.join(cells)} |"


if __name__ == "__main__":
    lines = [*table(), *(line for source in TOLD for line in ("", *misses(source)))]
    sys.stdout.write("\n".join([*lines, ""]))
