"""Bytes that each op moves, counted while its PTX runs, beside the least that it could: docs/compiled/bytes.csv.

The least is each tensor that the op is given once. What moves is every access of tensors as large as the largest one,
and of smaller ones, which caches hold, each byte once a launch. Workspaces are apart: sums of blocks for the next
kernel, which stay in L2. Exit status 1 where an op moves more than the table says; ops around a matrix product, whose
bytes are torch's, are left out.
"""

import argparse
import contextlib
import csv
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from normkernels.cases import OPS
from normkernels.tolerance import given, run

from . import build, cuda, launch

TABLE = Path(__file__).resolve().parents[2] / "docs/compiled/bytes.csv"
ROWS, FILTERS = [(48, 1024), (24, 1000)], [(64, 576)]
CHANNELS = [(4, 8, 16, 16), (6, 4, 80, 80)]  # one statistic in a block; many blocks of one
SHAPES = {"rms_norm": ROWS, "layer_norm": ROWS, "layer_norm_2d": [(2, 96, 16, 16)]}
SHAPES |= dict.fromkeys(("batch_norm", "group_norm", "instance_norm", "batch_renorm"), CHANNELS)
SHAPES |= dict.fromkeys(("online_norm", "streaming_norm"), CHANNELS[:1])
SHAPES |= dict.fromkeys(("weight_norm", "weight_standardization"), FILTERS)
KEY = 3  # columns


class Moved(NamedTuple):
    """One op on one shape in bfloat16 with parameters in float32. Sweeps: accesses, in sizes of the largest tensor."""

    backend: str
    op: str
    shape: str
    launches: int
    least: int
    moved: int
    workspaces: int
    sweeps: float


@contextlib.contextmanager
def counted(backend: str, shape: str, launched: list[launch.Launched]) -> Iterator[list[Moved]]:
    """Every op that is called inside ``running``."""
    backends: Any = importlib.import_module("normkernels._backends")
    load, found = backends._load, []

    def loaded(name: str, op: str, device: str):
        function = load(name, op, device)

        def call(*args):
            before = len(launched)
            function(*args)
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            found.append(_moved(backend, op, shape, tensors, launched[before:]))

        return call

    backends._load = loaded
    backends.resolve.cache_clear()
    try:
        yield found
    finally:
        backends._load = load
        backends.resolve.cache_clear()


def _moved(backend: str, op: str, shape: str, tensors: list, launched: list[launch.Launched]) -> Moved:
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    most = max(sizes.values())
    large, small, workspaces = 0, 0, 0
    for at, traffic in (item for one in launched for item in one.traffic.items()):
        if at not in sizes:
            workspaces += traffic.total
        elif sizes[at] >= most / 2:
            large += traffic.total
        else:
            small += int(traffic.touched.sum())
    least = sum(sizes.values())
    return Moved(backend, op, shape, len(launched), least, large + small, workspaces, round(large / most, 2))


def measured(backend: str, stem: str) -> list[Moved]:
    """Forward and backward, of each shape."""
    found = []
    for shape in SHAPES[stem]:
        options: dict = {} if OPS[stem].kind == "filters" else {"parameter_dtype": torch.float32}
        sample = OPS[stem].make(shape, torch.bfloat16, "cpu", **options)
        tensors, cotangents = given(OPS[stem], sample, torch.bfloat16, options.get("parameter_dtype"))
        stems = tuple(SHAPES)
        with (
            cuda.running(stems) if backend == "native" else launch.running() as launched,
            counted(backend, "x".join(map(str, shape)), launched) as moved,
        ):
            run(OPS[stem], sample.call, tensors, cotangents, backend)
        found += moved
    return found


def committed() -> dict[tuple[str, ...], Moved]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    made = [Moved._make([*row[:KEY], *map(int, row[KEY:-1]), float(row[-1])]) for row in rows]
    return {row[:KEY]: row for row in made}


def problems(found: list[Moved], table: dict[tuple[str, ...], Moved]) -> list[str]:
    """What moves more than the table says, one sentence each."""
    said = []
    for row in found:
        before = table.get(row[:KEY])
        if before is None:
            said.append(f"{' '.join(row[:KEY])}: not in the table; look at it, then --write")
            continue
        said += [
            f"{' '.join(row[:KEY])}: {name} {getattr(before, name)} -> {getattr(row, name)}"
            for name in ("launches", "moved", "workspaces")
            if getattr(row, name) > getattr(before, name)
        ]
    return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ptx.traffic", description=__doc__)
    parser.add_argument("ops", nargs="*", help="these alone (default: all)")
    parser.add_argument("--backend", choices=["triton", "native"], help="this alone (default: both)")
    parser.add_argument("--write", action="store_true", help="write the table that later runs are compared with")
    args = parser.parse_args()
    backends = [args.backend] if args.backend else ["triton", "native"] if build.nvcc() else ["triton"]
    found = [row for backend in backends for stem in args.ops or SHAPES for row in measured(backend, stem)]
    for row in found:
        sys.stdout.write(" ".join(f"{v!s:>14}" for v in row) + f" {row.moved / row.least:8.3f}\n")
    if args.write:
        kept = committed() if TABLE.exists() else {}
        kept |= {row[:KEY]: row for row in found}
        with TABLE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Moved._fields, *(kept[key] for key in sorted(kept))])
    said = problems(found, committed())
    sys.stdout.write("\n".join([*said, f"{len(found)} ops, {len(said)} problems"]) + "\n")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
