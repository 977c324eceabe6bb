"""The blocks of a launch, one after another."""

from itertools import product

import numpy as np

from .block import Block
from .memory import PTXError
from .parser import Kernel


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
    kernel: Kernel, memory, parameters: bytes, grid: tuple, block: tuple, shared_bytes: int = 0, order=None
) -> None:
    """Every block of a launch in turn; what a GPU refuses to launch is a PTXError."""
    threads = block[0] * block[1] * block[2]
    if not 0 < threads <= kernel.most_threads or not all(0 < g < 2**16 for g in grid[1:]) or not 0 < grid[0] < 2**31:
        raise PTXError(f"a launch that no GPU takes: {grid} of {block}, of which {kernel.most_threads} threads fit")
    with np.errstate(all="ignore"):
        for z, y, x in product(*map(range, grid[::-1])):
            Block(kernel, memory, parameters, block, shared_bytes).run((x, y, z), grid, order)
