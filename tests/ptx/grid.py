"""The blocks of a launch, one after another."""

from itertools import product

import numpy as np

from .block import Block
from .memory import Memory
from .parser import Kernel


def run(
    kernel: Kernel, memory: Memory, values: list, grid: tuple, warps: int, shared_bytes: int = 0, order=None
) -> None:
    """Every block of a launch in turn; integers and floats beyond ``values`` are zero."""
    constants = bytearray()
    for (offset, size), value in zip(
        kernel.parameters.values(), [*values, *[0] * len(kernel.parameters)], strict=False
    ):
        constants = constants.ljust(offset, b"\0")
        real = isinstance(value, float)
        constants += np.array(value, f"f{size}" if real else f"i{size}").tobytes()
    for z, y, x in product(*map(range, grid[::-1])):
        Block(kernel, memory, bytes(constants), 32 * warps, shared_bytes).run((x, y, z), grid, order)
