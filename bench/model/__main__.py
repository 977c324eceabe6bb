"""Predicted shares of a copy's speed on an H100 and an H200, from compiled code: see ``bench/model/__init__.py``.

Where the Triton that is installed compiles clusters, of the shapes that have them; they are in a table of their own.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import NamedTuple

from bench.shapes import SHAPES

from . import bars, grid
from .compiled import Code, keep, known
from .times import H100, H200, Device, copy
from .work import CLUSTERED, Called, calls, taken

TABLE = Path(__file__).with_name("clustered.csv" if CLUSTERED else "predicted.csv")
OPS = ("rms_norm", "layer_norm", "batch_norm", "group_norm", "instance_norm")
ODD = ["8192x777", "65536x33", "65536x32", "262144x8", "1024x20000", "4096x1024", "8192x512"]
ODD += ["8192x513", "4096x1025", "4096x2049", "2048x4097", "2048x8193", "2048x8192", "2048x16385", "2048x16384"]
SMALL = {"batch_norm": ["20x6x65536", "16x16x8x88", "16x16x8x48", "4x16x64x4", "16x16x128", "4096x1024"]}


class Predicted(NamedTuple):
    """Shares of a copy of the same bytes, H100 and H200."""

    op: str
    shape: str
    forward_h100: float
    forward_h200: float
    backward_h100: float
    backward_h200: float
    launches: str


def shapes(op: str) -> list[str]:
    found = [s for s in SHAPES["cuda"][op] if s not in SMALL.get(op, [])]
    found += ODD if op in ("rms_norm", "layer_norm") else []
    return [s for s in found if any(c.launch.num_ctas > 1 for c in launched(op, s))] if CLUSTERED else found


def launched(op: str, shape: str) -> list[Called]:
    """Forward and backward, on an H100."""
    sizes, _, layout = shape.partition(":")
    forward, backward, _ = calls(op, tuple(map(int, sizes.split("x"))), layout == "nhwc", H100)
    return forward + backward


def share(device: Device, launches: list[Called], moved: int, codes: dict[str, Code]) -> float:
    return round(copy(device, moved) / taken(device, launches, codes), 2)


def predict(op: str, shape: str, codes: dict[str, Code]) -> Predicted:
    sizes, _, layout = shape.partition(":")
    found, launches = [], ""
    for device in (H100, H200):
        forward, backward, size = calls(op, tuple(map(int, sizes.split("x"))), layout == "nhwc", device)
        found.append((share(device, forward, 2 * size, codes), share(device, backward, 3 * size, codes)))
        launches = f"{len(forward)}+{len(backward)}"
    (f100, b100), (f200, b200) = found
    return Predicted(op, shape, f100, f200, b100, b200, launches)


def committed() -> dict[tuple[str, ...], Predicted]:
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    made = [Predicted._make([*row[:2], *map(float, row[2:6]), row[6]]) for row in rows]
    return {row[:2]: row for row in made}


def worse(found: list[Predicted], table: dict[tuple[str, ...], Predicted]) -> list[str]:
    """Shares that fell by more than what rounding moves, one sentence each."""
    said = [f"{p.op} {p.shape}: not in {TABLE.name}; look at it, then --write" for p in found if p[:2] not in table]
    for p in found:
        if before := table.get(p[:2]):
            fell = [k for k in Predicted._fields[2:6] if getattr(p, k) < getattr(before, k) - 0.015]
            said += [f"{p.op} {p.shape}: {k} {getattr(before, k)} -> {getattr(p, k)}" for k in fell]
    return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=__doc__)
    parser.add_argument("ops", nargs="*", help=f"of {', '.join(OPS)} (default: all)")
    parser.add_argument("--shape", nargs="*", help="these alone, 4096x1024 or 32x256x56x56:nhwc")
    parser.add_argument("--check", action="store_true", help=f"exit status 1 where a share is below {TABLE.name}'s")
    parser.add_argument("--grid", action="store_true", help="every case of bench.sweep in place of these shapes")
    parser.add_argument("--bars", action="store_true", help="of each miss of a bar, what keeps it")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}, or the table of the others")
    args = parser.parse_args()
    codes, found = known(), []
    sys.stdout.write("predicted, not measured: share of a copy's speed on H100/H200\n")
    if args.bars and args.write and (args.ops or args.shape):
        parser.error(f"{bars.TABLE.name} is of all ops and shapes")
    if args.bars:
        return bars.main({op: args.shape or shapes(op) for op in args.ops or OPS}, codes, args.write)
    if args.grid:
        return grid.main(args.ops or list(OPS), args.shape, args.write, codes)
    for op in args.ops or OPS:
        for shape in args.shape or shapes(op):
            p = predict(op, shape, codes)
            found.append(p)
            fwd, bwd = f"{p.forward_h100:.2f}/{p.forward_h200:.2f}", f"{p.backward_h100:.2f}/{p.backward_h200:.2f}"
            sys.stdout.write(f"{op:14}{shape:24} forward {fwd}  backward {bwd}  launches {p.launches}\n")
            sys.stdout.flush()
            keep(codes)
    table = committed()
    if args.write:
        table |= {p[:2]: p for p in found}
        with TABLE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Predicted._fields, *(table[key] for key in sorted(table))])
    said = worse(found, table) if args.check else []
    sys.stdout.write("".join(f"{line}\n" for line in said))
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
