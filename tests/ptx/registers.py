"""Registers of the threads of a block, and what operands mean."""

import re

import numpy as np

from .memory import UNSIGNED
from .parser import BYTES, Kernel

NUMPY = {f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)}
NUMPY |= {
    f"{kind}{bits}": np.dtype(f"{'i' if kind == 's' else 'u'}{bits // 8}") for kind in "bus" for bits in (8, 16, 32, 64)
}
NUMPY |= {
    "bf16": np.dtype(np.uint16),
    "bf16x2": np.dtype(np.uint32),
    "f32x2": np.dtype(np.uint64),
    "pred": np.dtype(bool),
}


class Registers:
    """Of every thread; ``lanes`` are the threads that take the instruction at hand."""

    def __init__(self, kernel: Kernel, threads: int) -> None:
        self.kernel, self.threads = kernel, threads
        self.registers: dict[str, np.ndarray] = {}
        self.special: dict[str, np.ndarray] = {}
        self.lanes = np.arange(threads)

    def get(self, name: str, kind: str) -> np.ndarray:
        """An operand of the lanes at hand, as of that type."""
        if name.startswith("!"):
            return ~self.get(name[1:], kind)
        wanted = NUMPY[kind]
        if name in self.special:
            return self.special[name][self.lanes].astype(wanted)
        if name in self.kernel.registers:
            return self._register(name)[self.lanes].astype(UNSIGNED[wanted.itemsize], copy=False).view(wanted)
        if name in self.kernel.shared:
            return np.full(len(self.lanes), self.kernel.shared[name], wanted)
        if name in self.kernel.parameters:  # its address
            return np.full(len(self.lanes), self.kernel.parameters[name][0], wanted)
        if hexadecimal := re.fullmatch(r"0[fFdD]([0-9a-fA-F]+)", name):
            bits = UNSIGNED[len(hexadecimal[1]) // 2](int(hexadecimal[1], 16))
            return np.full(len(self.lanes), bits).view(wanted)
        if kind == "pred":  # of which -1 is true
            return np.full(len(self.lanes), int(name) != 0)
        bits = int(name.rstrip("U"), 0) % 2 ** (8 * wanted.itemsize)
        return np.full(len(self.lanes), bits, UNSIGNED[wanted.itemsize]).view(wanted)

    def put(self, name: str, values: np.ndarray) -> None:
        if name != "_":
            register = self._register(name)
            kind = {"f": "u"}.get(values.dtype.kind, values.dtype.kind)
            bits = values if kind == "b" else values.view(f"{kind}{values.dtype.itemsize}")
            register[self.lanes] = (
                bits if kind == "b" else bits.astype(f"{kind}{register.dtype.itemsize}").view(register.dtype)
            )

    def _register(self, name: str) -> np.ndarray:
        if name not in self.registers:
            kind = self.kernel.registers[name]
            self.registers[name] = np.zeros(self.threads, bool if kind == "pred" else UNSIGNED[BYTES[kind]])
        return self.registers[name]
