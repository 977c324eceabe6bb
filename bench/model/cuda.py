"""The backward of rows in CUDA, predicted by the same model: what nvcc makes of it, and shares of a copy's speed.

``python -m bench.model.cuda`` compiles the kernels of bfloat16 rows that a block or a cluster holds, x and parameters
packed, no activation, and says of each shape how many blocks a multiprocessor holds, what a thread has asked for before
a row is reduced, and the predicted share of the call: this kernel, and the sum over blocks or clusters that follows it.
"""

import argparse
import csv
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from bench.shapes import SHAPES

from .compiled import Code
from .cuda_code import Kernels, compile_kernels, facts
from .times import APART, H100, H200, Launched, Work, copy, resident, taken

TABLE = Path(__file__).with_name("cuda.csv")
CHUNKS, BLOCK, MOST, PACK = 2, 256, 512, 8  # of csrc/cuda/rows: packs of a thread, threads, values of a pack
TOGETHER = 8  # blocks of a cluster at most
KERNEL = "rows_backward_kernel<__nv_bfloat16, {center}, true, 0, false, {many}, 2>"
SUMMED, SUM_AHEAD = 256, 8  # of csrc/cuda/base/line_sums.cuh: threads, loads of one at once
LINES = "line_sums_kernel<__nv_bfloat16>"


class Row(NamedTuple):
    """Of one shape. ahead: 16-byte requests of a thread for the next row, before the barrier of this one.

    cluster: blocks of one, 1 where a block holds a row; blocks: of a multiprocessor.
    """

    op: str
    shape: str
    cluster: int
    registers: int
    blocks: int
    ahead: int
    barriers: int
    instructions: int
    h100: float
    h200: float


def line_sums(partial: int, N: int, tables: int, kernels: Kernels) -> Launched:
    """Adds up what so many blocks have of each of N columns, for one parameter or for two."""
    units = next((n for n in (256, 128, 64, 32, 16) if partial <= SUMMED // n * SUM_AHEAD), 8)
    steps = math.ceil(partial / (SUMMED // units * SUM_AHEAD))
    work = Work(tables * math.ceil(N / units), 4.0 * tables * partial * N, 0, steps, 1.0)
    return Launched(facts(LINES, *kernels[LINES], 1024)[0], work, SUMMED // 32)


def held(op: str, M: int, N: int, kernels: Kernels) -> tuple[list[Launched], int, int] | None:
    """The launches of a backward whose rows a block or a cluster holds, blocks of it, and what a thread asks ahead."""
    packs, center = N // PACK, op == "layer_norm"
    needed = math.ceil(packs / (BLOCK * CHUNKS))
    blocks = 1 if packs <= (BLOCK if center else MOST) * CHUNKS else min(TOGETHER, 1 << (needed - 1).bit_length())
    if N % PACK or packs > blocks * MOST * CHUNKS:
        return None
    needed = math.ceil(packs / blocks / CHUNKS)
    width = 32 * math.ceil(needed / 32) if needed > 32 else 2 ** math.ceil(math.log2(needed))
    rows = max(1, BLOCK // width) if blocks == 1 else 1
    warps, name = width * rows // 32, KERNEL.format(center=str(center).lower(), many=str(blocks > 1).lower())
    # sums of warps and blocks, what is asked ahead, weights
    shared = 2 * (1 + center) * (32 + 8) * 4 + (2 * 16 + 32) * CHUNKS * width * rows
    made, ahead = facts(name, *kernels[name], shared)
    programs = H100.multiprocessors * resident(made, warps) if blocks == 1 else clusters(made, warps, blocks)
    steps = math.ceil(math.ceil(M / rows) / programs)
    programs = math.ceil(math.ceil(M / rows) / steps)
    work = Work(programs * blocks, 4.0 * M * N, 2.0 * M * N, steps, cluster=blocks, statistics=rows)
    return [Launched(made, work, warps), line_sums(programs, N, 1 + center, kernels)], blocks, ahead


def clusters(code: Code, warps: int, blocks: int) -> int:
    """As many as the device runs at once, on multiprocessors that lie beside each other."""
    return (H100.multiprocessors - (APART if blocks > 2 else 0)) * resident(code, warps) // blocks


def predict(op: str, shape: str, kernels: Kernels) -> Row | None:
    M, N = map(int, shape.split("x"))
    if (found := held(op, M, N, kernels)) is None:
        return None
    launches, blocks, ahead = found
    code, _, warps = launches[0]
    shares = [round(copy(device, 6 * M * N) / taken(device, launches), 2) for device in (H100, H200)]
    said = code.registers, resident(code, warps), ahead, code.loop_barriers, code.loop
    return Row(op, shape, blocks, *said, *shares)


def held_kernels() -> dict[str, str]:
    """As compile_kernels takes them."""
    names = [KERNEL.format(center=c, many=m) for c in ("true", "false") for m in ("true", "false")]
    return dict.fromkeys(names, "RowsBackward<__nv_bfloat16>") | {LINES: "LineSums<__nv_bfloat16>"}


def committed() -> list[Row]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [Row._make([*row[:2], *map(int, row[2:8]), *map(float, row[8:])]) for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.model.cuda", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    args = parser.parse_args()
    kernels = compile_kernels(held_kernels())
    shapes: Any = [(op, shape) for op in ("layer_norm", "rms_norm") for shape in SHAPES["cuda"][op]]
    found = [row for op, shape in shapes if (row := predict(op, shape, kernels))]
    sys.stdout.write("predicted, not measured: share of a copy's speed on H100/H200\n")
    sys.stdout.write("".join(f"{row}\n" for row in found))
    if args.write:
        with TABLE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Row._fields, *found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
