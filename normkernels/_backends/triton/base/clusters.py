"""Clusters: programs of several blocks, on multiprocessors beside each other, which hold more than one block can.

What a sum over all blocks takes is two barriers of the cluster, and an answer of each other's shared memory.
"""

import functools

import torch
import triton
from torch import Tensor

from normkernels._backends.triton.base import launch

LARGEST = 8  # blocks of a cluster that every GPU takes which has any
VERSION, CAPABILITY = (3, 9), 9  # Triton 3.8 fails to compile most sums over several blocks, 3.7 all


def most(version: str, capability: int) -> int:
    """How many blocks a program may have, by the version of Triton and the major capability of a device."""
    major, minor = version.split(".")[:2]
    return LARGEST if (int(major), int(minor)) >= VERSION and capability >= CAPABILITY else 1


def blocks(t: Tensor) -> int:
    """How many blocks a program that is given ``t`` may have: a power of two, from one on."""
    return _blocks(t.device) if t.is_cuda else 1


@functools.cache
def _blocks(device: torch.device) -> int:
    found = most(triton.__version__, torch.cuda.get_device_capability(device)[0])
    return found if found > 1 and has_room(device) else 1


@triton.jit
def nothing():
    """What a device is asked about."""


def has_room(device: torch.device) -> bool:
    """Whether so many multiprocessors as LARGEST lie beside each other, as they may not in a slice of a GPU.

    Each block takes all of a multiprocessor's shared memory, so whatever else it may need finds room as well.
    """
    driver = triton.runtime.driver.active
    with torch.cuda.device(device):
        kernel = nothing.warmup(grid=(1,), num_ctas=LARGEST, num_warps=4)
        kernel._init_handles()
        shared = driver.utils.get_device_properties(driver.get_current_device())["max_shared_mem"]
        try:
            return driver.utils.cuOccupancyMaxActiveClusters(kernel.function, shared, LARGEST) > 0
        except RuntimeError:  # how CUDA says no
            return False


def programs(t: Tensor, pieces: int, num_warps: int, num_ctas: int) -> int:
    """Persistent programs of so many blocks for ``pieces`` of work: 16 warps on every multiprocessor.

    Clusters of four or eight lie on 16 of those that share a path, and one too many would wait for all others to end.
    """
    count = launch.multiprocessors(t)
    count = max(num_ctas, count // 16 * 16) if num_ctas > 2 else count
    return min(pieces, max(1, count * max(1, 16 // num_warps) // num_ctas))
