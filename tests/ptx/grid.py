"""The blocks of a launch, one cluster after another."""

from itertools import product

import numpy as np

from .block import Block
from .cluster import Cluster
from .memory import PTXError
from .parser import Kernel

ALONE = 1, 1, 1
LARGEST = 8  # blocks of a cluster that every GPU which has any takes


def packed(kernel: Kernel, values: list) -> bytes:
    """The parameters as a launch holds them; integers and floats beyond ``values`` are zero."""
    found = bytearray()
    for (offset, size), value in zip(
        kernel.parameters.values(), [*values, *[0] * len(kernel.parameters)], strict=False
    ):
        found = found.ljust(offset, b"\0")
        real = isinstance(value, float)
        found += np.array(value, f"f{size}" if real else f"i{size}").tobytes()
    return bytes(found)


def run(
    kernel: Kernel, memory, parameters: bytes, grid: tuple, block: tuple, shared_bytes: int = 0, order=None,
    cluster: tuple = ALONE,
) -> None:  # fmt: skip
    """Every cluster of a launch in turn; what a GPU refuses to launch is a PTXError.

    cluster: what the launch says of it, or else the kernel's own code does.
    """
    threads = block[0] * block[1] * block[2]
    if not 0 < threads <= kernel.most_threads or not all(0 < g < 2**16 for g in grid[1:]) or not 0 < grid[0] < 2**31:
        raise PTXError(f"a launch that no GPU takes: {grid} of {block}, of which {kernel.most_threads} threads fit")
    together = cluster if cluster != ALONE or kernel.cluster is None else kernel.cluster
    blocks, rest = together[0] * together[1] * together[2], [g % c for g, c in zip(grid, together, strict=True)]
    if any(rest) or not 0 < blocks <= LARGEST or kernel.cluster not in (None, together):
        raise PTXError(f"a launch that no GPU takes: {grid} in clusters of {together}, compiled for {kernel.cluster}")
    inside = [*product(*map(range, together[::-1]))]
    with np.errstate(all="ignore"):
        for corner in product(*(range(0, g, c) for g, c in zip(grid[::-1], together[::-1], strict=True))):
            made = []
            for place in inside:
                made.append(Block(kernel, memory, parameters, block, shared_bytes))
                z, y, x = (a + b for a, b in zip(corner, place, strict=True))
                made[-1].place((x, y, z), grid, together)
            Cluster(made).run(order)
