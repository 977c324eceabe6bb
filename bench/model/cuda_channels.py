"""Channels in CUDA that clusters hold, predicted by the same model: ``python -m bench.model.cuda_channels``.

Of bfloat16 planes with parameters in float32 and no activation: the launches of a call as ``csrc/cuda/channels`` makes
them without clusters and with them, and the share of a copy's speed that each is to have.
"""

import csv
import math
import sys
from pathlib import Path
from typing import NamedTuple

from .compiled import Code
from .cuda import LINES, line_sums
from .cuda_code import Kernels, compile_kernels, facts
from .cuda_long import again
from .tables import told
from .times import H100, H200, Launched, Work, copy, taken

TABLE = Path(__file__).with_name("cuda_channels.csv")
SHAPES = {
    "batch_norm": ["32x256x56x56", "32x512x28x28", "32x64x112x112", "64x64x56x56", "8x256x56x56", "16x32x80x80"],
    "group_norm": ["2x320x64x64", "32x256x56x56", "2x640x32x32", "8x256x64x64", "1x128x20x64x64", "32x512x28x28"],
    "instance_norm": ["2x64x64x64x64", "2x128x32x32x32", "8x64x160x160", "1x32x256x256", "2x32x48x48x48"],
}
PACK, PACKS, FORWARD, BACKWARD = 8, 4, 896, 512  # of csrc/cuda/channels/resident.cuh: values, packs, threads
ALONE, TOGETHER, MOST = 512, 256, 8  # threads of a block, and at best of those of a cluster; blocks of one
BLOCK, LEAST, MOST_PARTS = 256, 8, 1024  # of csrc/cuda/channels/plan.cuh: threads, steps of a part, parts
MERGED = 2048  # of csrc/cuda/channels/merged_backward.cuh: sums that a block merges at most
HELD = {way: f"channels_resident_{way}_kernel<__nv_bfloat16, 0, {{one}}, {{many}}{more}>" for way, more in
        (("forward", ", ChannelsForward<__nv_bfloat16> "), ("backward", ""))}  # fmt: skip
MOMENTS, APPLY = (
    "channels_moments_kernel<__nv_bfloat16, false, true>",
    "channels_apply_kernel<__nv_bfloat16, false, true, 0>",
)
SUMS, DX = "channels_sums_kernel<__nv_bfloat16, false, true, 0>", "channels_dx_kernel<__nv_bfloat16, false, true, 0>"
MERGE_DX = "channels_merge_dx_kernel<__nv_bfloat16, false, true, 0>"
STATISTICS, MEANS = "channels_statistics_kernel<__nv_bfloat16>", "channels_means_kernel<__nv_bfloat16>"


class Channels(NamedTuple):
    """Of one shape and way: blocks of a cluster; launches and shares without clusters, and with them."""

    op: str
    shape: str
    way: str
    blocks: int
    plain_launches: int
    plain_h100: float
    plain_h200: float
    launches: int
    h100: float
    h200: float


class Shape(NamedTuple):
    N: int
    C: int
    S: int
    B: int
    G: int

    @property
    def count(self) -> int:
        """Values of a statistic."""
        return self.N // self.B * (self.C // self.G) * self.S

    @property
    def size(self) -> float:
        return 2.0 * self.N * self.C * self.S


def shape_of(op: str, text: str) -> Shape:
    N, C, *rest = map(int, text.split("x"))
    B, G = {"batch_norm": (1, C), "group_norm": (N, math.gcd(32, C)), "instance_norm": (N, C)}[op]
    return Shape(N, C, math.prod(rest), B, G)


def code(kernels: Kernels, name: str, shared: int) -> Code:
    return facts(name, *kernels[name], shared)[0]


def blocks_of(x: Shape, threads: int) -> int:
    """That hold a statistic: a cluster's, or 1; 0 where none do."""
    each = PACKS * PACK
    if x.count <= ALONE * each:
        return 1
    blocks = min(MOST, 1 << (math.ceil(x.count / (TOGETHER * each)) - 1).bit_length())
    return blocks if x.count <= blocks * threads * each else 0


def held(way: str, x: Shape, blocks: int, kernels: Kernels) -> list[Launched]:
    """One launch that reads everything once, with its warps, and what adds up the gradients of parameters."""
    backward, shared = way == "backward", 16704 if way == "backward" and x.C > x.G else 320
    made = code(kernels, HELD[way].format(one=str(x.C == x.G).lower(), many=str(blocks > 1).lower()), shared)
    work = Work(x.B * x.G * blocks, x.size * (1 + backward), x.size, cluster=blocks)
    found = [Launched(made, work, math.ceil(x.count / PACK / blocks / PACKS / 32))]
    rows = x.B * (blocks if x.C > x.G else 1)
    return found + [line_sums(rows, x.C, 2, kernels)] * (backward and rows > 1)


def swept(way: str, x: Shape, kernels: Kernels) -> list[Launched]:
    """A sweep that reduces, what merges, a sweep that writes."""
    packs = math.ceil(x.S / PACK)
    threads = BLOCK if packs > 512 else min(32, 1 << (packs - 1).bit_length())
    tile = threads * PACK
    length = max(LEAST, math.ceil(math.ceil(x.S / tile) / MOST_PARTS))
    parts, rows = math.ceil(x.S / (tile * length)), x.N * math.ceil(x.S / (tile * length))
    programs, tensors = math.ceil(x.N * x.C * threads / BLOCK) * parts, 2 if way == "backward" else 1
    steps = math.ceil(math.ceil(x.S / (tile * parts)) / (4 if tensors == 1 else 2))
    read, entries = x.size * tensors, x.count // x.S * parts
    table, merge = 8.0 * rows * x.C, max(1, math.ceil(entries / BLOCK))
    first = Work(programs, read, table, steps, statistics=BLOCK / threads)
    second = Work(programs, read, x.size, steps, again(read))
    statistics = x.B * x.G
    if way == "forward":
        rule = Launched(code(kernels, STATISTICS, 256), Work(statistics, table, 0, merge, 1.0))
        names = MOMENTS, APPLY
    elif x.B == 1 and x.C == x.G and rows * BLOCK // threads <= MERGED:
        names, rule = (SUMS, MERGE_DX), None
        second = second._replace(before=8.0 * rows * BLOCK / threads)
    else:
        work = Work(statistics + 2 * math.ceil(x.C / 8), 2 * table, 0, max(merge, math.ceil(rows / 128)), 1.0)
        rule, names = Launched(code(kernels, MEANS, 1280), work), (SUMS, DX)
    made = [Launched(code(kernels, name, 256), work) for name, work in zip(names, (first, second), strict=True)]
    return [one for one in (made[0], rule, made[1]) if one is not None]


def predict(op: str, shape: str, way: str, kernels: Kernels) -> Channels | None:
    x = shape_of(op, shape)
    most = FORWARD if way == "forward" else BACKWARD
    blocks, alone = blocks_of(x, most), x.count <= most * PACKS * PACK
    if blocks < 2:
        return None
    old = held(way, x, 1, kernels) if alone else swept(way, x, kernels)
    new = held(way, x, blocks, kernels)
    shares = [
        [
            round(copy(device, (3 if way == "backward" else 2) * x.size) / taken(device, made), 2)
            for device in (H100, H200)
        ]
        for made in (old, new)
    ]
    return Channels(op, shape, way, blocks, len(old), *shares[0], len(new), *shares[1])


def compile_channels() -> Kernels:
    each = [{"one": one, "many": many} for one in ("true", "false") for many in ("true", "false")]
    held = {way: [HELD[way].format(**given) for given in each] for way in HELD}
    forward = [*held["forward"], MOMENTS, STATISTICS, APPLY]
    backward = dict.fromkeys([*held["backward"], SUMS, DX, MERGE_DX], "ChannelsBackward<__nv_bfloat16>")
    backward |= {MEANS: "ChannelMeans<__nv_bfloat16>", LINES: "LineSums<__nv_bfloat16>"}
    given = dict.fromkeys(forward, "ChannelsForward<__nv_bfloat16>")
    found = compile_kernels(given, "cuda/channels/resident_forward.cuh")
    return found | compile_kernels(backward, "cuda/channels/resident_backward.cuh")


def committed() -> list[Channels]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [
        Channels(a, b, c, int(d), int(e), float(f), float(g), int(h), float(i), float(j))
        for a, b, c, d, e, f, g, h, i, j in rows
    ]


def main() -> int:
    kernels = compile_channels()
    ways = [(op, shape, way) for op, shapes in SHAPES.items() for shape in shapes for way in ("forward", "backward")]
    found = [row for each in ways if (row := predict(*each, kernels))]
    return told("share of a copy's speed on H100/H200, without clusters and with them", found, TABLE)


if __name__ == "__main__":
    sys.exit(main())
