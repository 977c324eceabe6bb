"""A block of threads: lanes of numpy arrays, in lockstep, or warp by warp in random order from barrier to barrier."""

import random
import re

import numpy as np

from .instructions import execute
from .memory import UNSIGNED, Memory, PTXError
from .parser import BYTES, Instruction, Kernel

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
ENDS = ("bra", "ret", "exit", "bar", "barrier")


class Block:
    """One program of a launch. ``lanes`` are the threads that take the instruction at hand."""

    def __init__(self, kernel: Kernel, memory: Memory, constants: bytes, shape: tuple, shared_bytes: int) -> None:
        self.kernel, self.memory, self.shape = kernel, memory, shape
        self.threads = threads = shape[0] * shape[1] * shape[2]
        self.constants = np.frombuffer(constants.ljust(-(-len(constants) // 16) * 16, b"\0"), np.uint8)
        self.shared = Memory(kernel.shared_bytes + shared_bytes, "shared")
        self.shared.owned[:] = True
        self.registers: dict[str, np.ndarray] = {}
        self.copies: dict[int, list[list]] = {}  # of each warp, groups of cp.async that no wait has completed
        self.warps, self.lanes, self.special = np.arange(threads) // 32, np.arange(threads), {}
        self.next = np.zeros(threads, np.int64)
        self.waits, self.ended, self.apart = np.zeros((3, threads), bool)
        self.released = False

    def run(self, place: tuple[int, ...], grid: tuple[int, ...], order: random.Random | None) -> None:
        """To the end of every thread."""
        tid = np.arange(self.threads)
        self.special = {"%laneid": tid % 32, "%warpid": tid // 32}
        threads = np.unravel_index(tid, self.shape[::-1])[::-1]
        for axis, at, size, thread, width in zip("xyz", place, grid, threads, self.shape, strict=True):
            of = {"ctaid": at, "nctaid": size, "tid": thread, "ntid": width}
            self.special |= {f"%{name}.{axis}": np.broadcast_to(value, tid.shape) for name, value in of.items()}
        while not self.ended.all():
            ready = ~(self.waits | self.ended | self.apart)
            if not ready.any():
                self.released = bool(self.apart.any())
                (self.apart if self.released else self.waits)[:] = False
                continue
            if order:
                ready &= self.warps == order.choice(np.unique(self.warps[ready]).tolist())
            at = self.next[ready].min()
            self.lanes = np.flatnonzero(ready & (self.next == at))
            self._straight(int(at))
        if self.waits.any():
            raise PTXError("a barrier that some threads never reach")

    def _straight(self, at: int) -> None:
        """From one instruction to a branch, a barrier or a label; whoever is furthest behind goes first."""
        lanes, (released, self.released) = self.lanes, (self.released, False)
        while True:
            instruction = self.kernel.code[at]
            if instruction.opcode[0] == "shfl" and not released and not self._whole(lanes):
                self.apart[lanes], self.next[lanes] = True, at
                return
            released, chosen = False, lanes
            if instruction.guard:
                chosen = lanes[self.get(instruction.guard, "pred") ^ instruction.negated]
            at += 1
            if instruction.opcode[0] in ENDS:
                self.next[lanes] = at
                self._control(instruction, chosen)
                return
            if len(chosen):
                self.lanes = chosen
                execute(self, instruction)
                self.lanes = lanes
            if at in self.kernel.targets:
                self.next[lanes] = at
                return

    def _whole(self, lanes: np.ndarray) -> bool:
        """Whether their warps are all here: if not, a shuffle waits for the others, as a GPU's does, while they run."""
        return len(lanes) == int((np.isin(self.warps, self.warps[lanes]) & ~self.ended).sum())

    def _control(self, instruction: Instruction, lanes: np.ndarray) -> None:
        if instruction.opcode[0] == "bra":
            self.next[lanes] = self.kernel.labels[instruction.arguments[0]]
        elif instruction.opcode[0] in ("bar", "barrier"):
            if self.ended.any():
                raise PTXError("a barrier that some threads never reach")
            self.waits[lanes] = True
        else:
            self.ended[lanes] = True

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
