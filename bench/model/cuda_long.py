"""Rows that no block of CUDA's holds, predicted by the same model: ``python -m bench.model.cuda_long``.

Of bfloat16 rows, x and parameters packed, no activation: the launches of a call as ``csrc/cuda/rows`` makes them, the
bytes that they move over the least, and the time over that of a copy and its allowance, as the grid has it.
"""

import csv
import math
import sys
from pathlib import Path
from typing import NamedTuple

from .compiled import Code
from .cuda import held, held_kernels, line_sums
from .cuda_code import Kernels, compile_kernels, facts
from .grid import MORE
from .tables import told
from .times import H100, H200, L2_KEPT, Device, Launched, Work, copy, resident, taken

TABLE = Path(__file__).with_name("cuda_long.csv")
SHAPES = ["16x20000", "16x65536", "64x65536", "4x262144", "1x1048576", "4096x65536", "1024x262144"]
SEGMENT, PACK, WARPS = 256, 8, 8  # threads of a block, values of a pack
PACKS, MOST, BLOCKS = 4, 512, 8  # packs of a thread forward, threads of a block of a cluster, blocks of one
TURNS, BESIDE = 16, 8  # of csrc/cuda/rows/strips.cuh: turns of a block at least; rows beside each other at most
TOGETHER = "rows_forward_kernel<__nv_bfloat16, {center}, true, 0, false, true, 4>"
MOMENTS = "rows_forward_moments_kernel<__nv_bfloat16, {center}, true>"
SEGMENTS = "rows_forward_segment_kernel<__nv_bfloat16, {center}, true, 0>"
SUMS = "rows_backward_sums_kernel<__nv_bfloat16, {center}, true, 0>"
STRIP = "rows_backward_strip_kernel<__nv_bfloat16, {center}, true, 0, false>"


class Long(NamedTuple):
    """Of one shape, each way: launches, bytes over the least, and of H100 and H200 the worse time over a copy's."""

    op: str
    shape: str
    forward_launches: int
    forward_bytes: float
    forward_over: float
    backward_launches: int
    backward_bytes: float
    backward_over: float


def code(kernels: Kernels, name: str, shared: int) -> Code:
    return facts(name, *kernels[name], shared)[0]


def again(size: float) -> float:
    """The share of what was read before that L2 still has."""
    return min(0.98, L2_KEPT / size)


def forward(center: str, M: int, N: int, device: Device, kernels: Kernels) -> list[Launched]:
    """In a cluster, or moments of segments, then y."""
    size, blocks = 2.0 * M * N, M * math.ceil(N / (SEGMENT * PACKS * PACK))
    if N <= BLOCKS * MOST * PACKS * PACK:
        together = min(BLOCKS, 1 << (blocks // M - 1).bit_length())
        work = Work(M * together, size, size, cluster=together)
        warps = math.ceil(N / (PACK * PACKS * together * 32))
        return [Launched(code(kernels, TOGETHER.format(center=center), 320), work, warps)]
    return [
        Launched(code(kernels, MOMENTS.format(center=center), 256), Work(blocks, size, 0)),
        Launched(code(kernels, SEGMENTS.format(center=center), 256), Work(blocks, size, size, 0, again(size))),
    ]


def backward(center: str, M: int, N: int, device: Device, kernels: Kernels) -> list[Launched]:
    """In clusters, else sums of segments, then strips of columns; line sums where several blocks have a strip."""
    if found := held("layer_norm" if center == "true" else "rms_norm", M, N, kernels):
        return found[0]
    size, beside = 2.0 * M * N, min(BESIDE, 1 << (M - 1).bit_length())
    strips = math.ceil(N / (SEGMENT // beside * PACK))
    strip = code(kernels, STRIP.format(center=center), SEGMENT * (32 + 32 + 32))
    most = device.multiprocessors * resident(strip, WARPS) // strips
    shares = max(1, min(most, math.ceil(M / (beside * TURNS))))
    partial = 2 * 4.0 * shares * N if shares > 1 else 0.0
    steps = math.ceil(M / (beside * shares))
    sums = Work(M * math.ceil(N / (SEGMENT * 2 * PACK)), 2 * size, 0)
    made = [
        Launched(code(kernels, SUMS.format(center=center), 256), sums),
        Launched(strip, Work(strips * shares, 2 * size, size + partial, steps, again(2 * size))),
    ]
    return made + [line_sums(shares, N, 2, kernels)] * (shares > 1)


def predict(op: str, shape: str, kernels: Kernels) -> Long:
    M, N = map(int, shape.split("x"))
    center, size, fields = str(op == "layer_norm").lower(), 2.0 * M * N, []
    for i, way in enumerate((forward, backward)):
        least, over = (2 + i) * size, 0.0
        for device in (H100, H200):
            made = way(center, M, N, device, kernels)
            over = max(over, taken(device, made) / (copy(device, least) + MORE[i]))
        moved = sum(one.work.read + one.work.written for one in made)
        fields += [len(made), round(moved / least, 2), round(over, 2)]
    return Long._make([op, shape, *fields])


def compile_long() -> Kernels:
    each = {
        TOGETHER: "RowsForward",
        MOMENTS: "RowsForward",
        SEGMENTS: "RowsForward",
        SUMS: "RowsBackward",
        STRIP: "RowsBackward",
    }
    names = {k.format(center=c): f"{given}<__nv_bfloat16>" for k, given in each.items() for c in ("true", "false")}
    forward = {name: given for name, given in names.items() if "Forward" in given}
    backward = {name: given for name, given in names.items() if "Backward" in given} | held_kernels()
    return compile_kernels(forward, "cuda/rows/forward.cuh") | compile_kernels(backward)


def committed() -> list[Long]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [Long(a, b, int(c), float(d), float(e), int(f), float(g), float(h)) for a, b, c, d, e, f, g, h in rows]


def main() -> int:
    kernels = compile_long()
    found = [predict(op, shape, kernels) for op in ("layer_norm", "rms_norm") for shape in SHAPES]
    return told("time over a copy and 4 us (forward) or 8 us (backward)", found, TABLE)


if __name__ == "__main__":
    sys.exit(main())
