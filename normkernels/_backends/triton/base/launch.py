"""Launches: the size of a tile, how many programs, where they run, and what a launcher is given."""

import functools
from collections.abc import Callable
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor

SHARED = 96 * 1024  # bytes of a multiprocessor's shared memory that tiles in flight may take: sm_86 has 99 KB


class Tile(NamedTuple):
    """What one program holds in registers: BLOCK_M rows of BLOCK_N columns."""

    BLOCK_M: int
    BLOCK_N: int
    num_warps: int


def unaligned(N: int, itemsize: int) -> bool:
    """Whether 128-bit accesses do not divide N: then every element has its own mask, and that takes registers."""
    return N % (16 // itemsize) != 0


def multiprocessors(t: Tensor) -> int:
    return torch.cuda.get_device_properties(t.device).multi_processor_count if t.is_cuda else 4


def programs(t: Tensor, blocks: int, num_warps: int) -> int:
    """Persistent programs for ``blocks`` pieces of work: 16 warps on every multiprocessor."""
    return min(blocks, multiprocessors(t) * max(1, 16 // num_warps))


def wave(t: Tensor, row_bytes: int) -> int:
    """How many rows to take at a time so that a second read of them finds them in L2."""
    l2 = torch.cuda.get_device_properties(t.device).L2_cache_size if t.is_cuda else 2**20
    return max(1, l2 // 2 // row_bytes)


def stages(tile_bytes: int, num_warps: int) -> int:
    """Of a loop's pipeline: as many tiles as a multiprocessor with 16 warps holds, beside the one that is computed."""
    return max(2, min(5, 1 + SHARED // (tile_bytes * max(1, 16 // num_warps))))


def alignment(t: Tensor, *multiples: int) -> int:
    """Elements per access that lengths and strides allow, up to 128 bits."""
    return gcd(16 // t.element_size(), *multiples)


def on_device(launcher: Callable[[Any], None]) -> Callable[[Any], None]:
    """Launch on the device of the first tensor of an op's arguments, whichever is current."""

    @functools.wraps(launcher)
    def launch(a):
        with torch.cuda.device_of(a[0]):
            launcher(a)

    return launch


def stride(t: Tensor | None) -> int:
    return 0 if t is None else t.stride(0)


def accumulator(stat: Tensor, *shape: int) -> Tensor:
    """An unfilled workspace in the dtype of the statistics."""
    return stat.new_empty(shape)
