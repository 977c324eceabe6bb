"""A block of threads: lanes of numpy arrays, in lockstep, or warp by warp in random order from barrier to barrier."""

import random

import numpy as np

from .instructions import execute
from .memory import Memory, PTXError
from .parser import Instruction, Kernel
from .registers import Registers
from .shared import History

ENDS = ("bra", "ret", "exit", "bar", "barrier")
MISSED = "a barrier that some threads never reach"


class Block(Registers):
    """One program of a launch, or of the blocks that share one as a cluster."""

    def __init__(self, kernel: Kernel, memory: Memory, constants: bytes, shape: tuple, shared_bytes: int) -> None:
        super().__init__(kernel, shape[0] * shape[1] * shape[2])
        self.memory, self.shape, threads = memory, shape, self.threads
        self.constants = np.frombuffer(constants.ljust(-(-len(constants) // 16) * 16, b"\0"), np.uint8)
        self.own = self.shared = Memory(kernel.shared_bytes + shared_bytes, "shared")
        self.own.owned[:] = True
        self.copies: dict[int, list[list]] = {}  # of each warp, groups of cp.async that no wait has completed
        self.warps = np.arange(threads) // 32
        self.next = np.zeros(threads, np.int64)
        self.waits, self.meets, self.ended, self.apart = np.zeros((4, threads), bool)
        self.released = False
        # of a cluster: barriers that a thread has arrived at, and has waited for; at which of them writes are released
        self.rank, self.history = 0, History(len(self.own.bytes))
        self.arrived, self.waited = np.zeros((2, threads), np.int64)
        self.releases: set[int] = set()

    def place(self, at: tuple[int, ...], grid: tuple[int, ...], cluster: tuple[int, ...]) -> None:
        """Where it is in the grid, and in its cluster."""
        tid = np.arange(self.threads)
        threads = np.unravel_index(tid, self.shape[::-1])[::-1]
        of = {"laneid": tid % 32, "warpid": tid // 32}
        inside = [place % size for place, size in zip(at, cluster, strict=True)]
        self.rank = (inside[2] * cluster[1] + inside[1]) * cluster[0] + inside[0]
        of |= {"cluster_ctarank": self.rank, "cluster_nctarank": cluster[0] * cluster[1] * cluster[2]}
        for k, axis in enumerate("xyz"):
            of |= {f"ctaid.{axis}": at[k], f"nctaid.{axis}": grid[k]}
            of |= {f"tid.{axis}": threads[k], f"ntid.{axis}": self.shape[k]}
            of |= {f"clusterid.{axis}": at[k] // cluster[k], f"nclusterid.{axis}": grid[k] // cluster[k]}
            of |= {f"cluster_ctaid.{axis}": inside[k], f"cluster_nctaid.{axis}": cluster[k]}
        self.special = {f"%{name}": np.broadcast_to(value, tid.shape) for name, value in of.items()}

    def ready(self) -> np.ndarray:
        """Threads that nothing holds up; where that is none, those whom others of the block held up go on."""
        held = self.waits | self.meets | self.ended | self.apart
        if not held.all():
            return ~held
        if self.apart.any():
            self.released, self.apart[:] = True, False
        elif self.waits.any() and not self.meets.any():
            if self.ended.any():
                raise PTXError(MISSED)
            self.waits[:] = False
        return ~(self.waits | self.meets | self.ended | self.apart)

    def step(self, order: random.Random | None) -> None:
        """Some threads that are ready, from one instruction to where they part or wait."""
        ready = self.ready()
        if order:
            ready &= self.warps == order.choice(np.unique(self.warps[ready]).tolist())
        at = self.next[ready].min()
        self.lanes = np.flatnonzero(ready & (self.next == at))
        self._straight(int(at))

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
        opcode = instruction.opcode
        if opcode[0] == "bra":
            self.next[lanes] = self.kernel.labels[instruction.arguments[0]]
        elif opcode[:2] == ("barrier", "cluster"):
            self._meet(opcode, lanes)
        elif opcode[0] in ("bar", "barrier"):
            if self.ended.any():
                raise PTXError(MISSED)
            self.waits[lanes] = True
        else:
            self.ended[lanes] = True
            if self.ended.all() and self.waited.max() <= self.history.visited:
                raise PTXError("a block may end while another of its cluster uses its shared memory")

    def _meet(self, opcode: tuple[str, ...], lanes: np.ndarray) -> None:
        """A thread arrives at a barrier of the cluster and then waits for it, in turn."""
        arrives = "arrive" in opcode
        if (self.arrived[lanes] - self.waited[lanes] != (not arrives)).any():
            raise PTXError(f"out of turn: {'.'.join(opcode)}")
        if not arrives:
            self.meets[lanes] = True
            return
        if "relaxed" not in opcode:
            self.releases |= set(self.arrived[lanes].tolist())
        self.arrived[lanes] += 1
