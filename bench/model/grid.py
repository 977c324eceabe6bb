"""The model over every case of ``python -m bench.sweep``: rows of 8 to 1M, odd too, images of 1 to 112 a side.

Small calls are all launches, so no share of a copy says much there: a case is a cliff where it takes more than twice as
long as a copy and 4 us (forward) or 8 us (backward). ``grid.csv`` holds every case, ``grid_clustered.csv`` those that
have clusters by the newest Triton. Beside it stands what our launches would take at the least over what torch's would
(``theirs``).
"""

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench.sweep import Case, cases

from . import theirs
from .compiled import Code, keep
from .times import H100, H200, copy
from .work import CLUSTERED, Called, Kind, calls, taken, work

EVERY, SOME = (Path(__file__).with_name(name) for name in ("grid.csv", "grid_clustered.csv"))
TABLE = SOME if CLUSTERED else EVERY
MORE = 4e-6, 8e-6  # s beside a copy, forward and backward
CLIFF = 2.0
SAME = 1.02  # times torch's, up to which what either launches is as good: 0.1 us of 6
KEY = 4  # columns


class Cell(NamedTuple):
    """Shares of a copy of the same bytes, and the worse of H100 and H200 of two ratios.

    over: the time over that of a copy and MORE; torch: that of our launches at the least over that of torch's.
    """

    op: str
    dtype: str
    layout: str
    shape: str
    forward_h100: float
    forward_h200: float
    backward_h100: float
    backward_h200: float
    forward_over: float
    backward_over: float
    forward_torch: float
    backward_torch: float
    launches: str


def launched(called: Called) -> theirs.Launched:
    """One of ours as torch's are described: a pipeline has all of its tiles but one under way."""
    stages, made = getattr(called.given.get("FORM"), "STAGES", 1), work(called)
    return theirs.Launched(made, called.launch.num_warps, max(1.0, made.steps / max(1, stages - 1)))


def kind(case: Case) -> Kind:
    """Parameters in the dtype of x, and eight groups, as the sweep has them."""
    return Kind(case.dtype, case.dtype, affine=True, groups=8)


def clustered(case: Case) -> bool:
    forward, backward, _ = calls(case.op, case.shape, bool(case.layout), H100, kind(case))
    return any(called.launch.num_ctas > 1 for called in forward + backward)


def predict(case: Case, codes: dict[str, Code]) -> Cell:
    shares: list[list[float]] = [[], []]
    over, beside, launches = [0.0, 0.0], [0.0, 0.0], ""
    for device in (H100, H200):
        *ways, size = calls(case.op, case.shape, bool(case.layout), device, kind(case))
        torchs = theirs.launches(case.op, case.shape, bool(case.layout), size)
        for i, made in enumerate(ways):
            time, least = taken(device, made, codes), copy(device, (2 + i) * size)
            shares[i].append(round(least / time, 3))
            over[i] = max(over[i], round(time / (least + MORE[i]), 2))
            ratio = theirs.taken(device, [launched(c) for c in made]) / theirs.taken(device, torchs[i])
            beside[i] = max(beside[i], round(ratio, 2))
        launches = "+".join(str(len(made)) for made in ways)
    _, dtype, layout, shape, *_ = case.key(1, "")
    return Cell._make([case.op, dtype, layout, shape, *shares[0], *shares[1], *over, *beside, launches])


def committed(table: Path = EVERY) -> dict[tuple[str, ...], Cell]:
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    made = [Cell._make([*row[:KEY], *map(float, row[KEY:-1]), row[-1]]) for row in rows]
    return {cell[:KEY]: cell for cell in made}


def cliffs(cells: list[Cell]) -> list[Cell]:
    return [c for c in cells if max(c.forward_over, c.backward_over) > CLIFF]


def summary(cells: list[Cell]) -> list[str]:
    """The cliffs, the worst first, and how many there are of each op."""
    found = sorted(cliffs(cells), key=lambda c: -max(c.forward_over, c.backward_over))
    said = []
    for c in found:
        name, over = " ".join(filter(None, c[:KEY])), f"forward {c.forward_over:.2f}  backward {c.backward_over:.2f}"
        said.append(f"{name:52} {over}  launches {c.launches}")
    every, bad = Counter(c.op for c in cells), Counter(c.op for c in found)
    said += [f"{op}: {bad[op]} of {n} above {CLIFF:g} times a copy and launches" for op, n in every.items()]
    for way in ("forward", "backward"):
        slower = Counter(c.op for c in cells if getattr(c, f"{way}_torch") > SAME)
        said += [f"{op} {way}: {slower[op]} of {n} launched worse than torch's" for op, n in every.items()]
    return said


def main(ops: list[str], shapes: list[str] | None, write: bool, codes: dict[str, Code]) -> int:
    """Exit status 1 where a case is not what the table says."""
    found, table = [], committed(TABLE)
    for case in cases():
        if CLUSTERED and not clustered(case):
            continue
        if case.op in ops and (shapes is None or "x".join(map(str, case.shape)) in shapes):
            before = len(codes)
            found.append(predict(case, codes))
            if len(codes) > before:  # what is compiled is not compiled again, if this is cut off
                keep(codes)
    sys.stdout.write("\n".join(summary(found)) + "\n")
    if write:
        table |= {c[:KEY]: c for c in found}
        with TABLE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Cell._fields, *(table[key] for key in sorted(table))])
    other = [c for c in found if table.get(c[:KEY]) != c]
    sys.stdout.write("".join(f"not as in {TABLE.name}: {' '.join(c[:KEY])}\n" for c in other))
    return int(bool(other))
