"""The bars that predicted shares are held to, and of each miss what keeps it: bytes, launches or code.

The limit of a call is its share if its code cost nothing: its launches one after the other, each as long as its bytes
take or as one answer of memory.
"""

import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .compiled import Code
from .times import H100, H200, LAUNCH, Device, copy, least, moving
from .work import Called, calls, taken, work

LARGE = 30e6  # bytes moved, from which on a bar holds for channels and odd rows


class Bar(NamedTuple):
    """Least shares, H100 and H200."""

    h100: float
    h200: float


class Spent(NamedTuple):
    """A way of a call on a device: shares, predicted and at best; microseconds beyond a copy's, by what takes them."""

    share: float
    limit: float
    bytes: float
    launches: float
    code: float


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


def spent(device: Device, launches: list[Called], moved: int, codes: dict[str, Code]) -> Spent:
    works = [work(c) for c in launches]
    alone, best, took = copy(device, moved), sum(least(device, w) for w in works), taken(device, launches, codes)
    busy = sum(moving(device, w) for w in works)
    parts = busy - (alone - LAUNCH), best - LAUNCH - busy, took - best
    return Spent(alone / took, alone / best, *(round(1e6 * part, 1) for part in parts))


def misses(op: str, shapes: list[str], codes: dict[str, Code]) -> Iterator[str]:
    """Lines of a table in Markdown."""
    for shape in shapes:
        sizes, _, layout = shape.partition(":")
        dims = tuple(map(int, sizes.split("x")))
        made = [(device, *calls(op, dims, layout == "nhwc", device)) for device in (H100, H200)]
        for way in ("forward", "backward"):
            wanted, found = bar(op, dims, way == "backward"), []
            for device, forward, backward, size in made:
                launches, moved = (backward, 3 * size) if way == "backward" else (forward, 2 * size)
                found.append(spent(device, launches, moved, codes))
            a, b = found
            if wanted and (a.share < wanted.h100 or b.share < wanted.h200):
                bars = f"{wanted.h100:.2f}/{wanted.h200:.2f}" if wanted.h200 else f"{wanted.h100:.2f}"
                shares = f"{a.share:.2f}/{b.share:.2f} | {bars} | {a.limit:.2f}/{b.limit:.2f}"
                yield f"| {op} {shape} {way} | {shares} | {a.bytes}, {a.launches}, {a.code} |"


def main(ops: list[str], shapes: dict[str, list[str]], codes: dict[str, Code]) -> int:
    sys.stdout.write(
        "| call | predicted | bar | limit | us beyond a copy, H100: bytes, launches, code |\n|---|---|---|---|---|\n"
    )
    for op in ops:
        for line in misses(op, shapes[op], codes):
            sys.stdout.write(line + "\n")
    return 0
