"""Memory that knows which of its bytes are somebody's, and which were written."""

import numpy as np

UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
GAP = 256  # bytes that are nobody's between two allocations


class PTXError(Exception):
    """What a GPU would do without a word: an access out of bounds, a read of what nobody wrote, a lost barrier."""


class Traffic:
    """What accesses of one tensor moved: all of their bytes, and which bytes these were."""

    def __init__(self, size: int) -> None:
        self.total, self.touched = 0, np.zeros(size, bool)

    def add(self, places: np.ndarray, size: int) -> None:
        self.total += size * len(np.unique(places))  # lanes that read the same share an access
        for k in range(size):
            self.touched[places + k] = True


class Memory:
    """A space of bytes; an access out of bounds, across its own size, or of what nobody wrote is a PTXError."""

    def __init__(self, size: int, space: str) -> None:
        self.space, self.top = space, 0
        self.traffic: dict[int, Traffic] = {}  # of each allocation
        self.bytes = np.full(-(-size // 16) * 16, 0xA5, np.uint8)
        self.owned, self.written = np.zeros((2, len(self.bytes)), bool)

    def allocate(self, size: int, data: np.ndarray | None = None) -> int:
        """The address of so many bytes: unwritten ones, or those of ``data``."""
        at = self.top + GAP
        self.top = -(-(at + size) // GAP) * GAP
        if self.top + GAP > len(self.bytes):
            raise MemoryError(f"{self.space} memory of {len(self.bytes)} bytes is full")
        self.owned[at : at + size] = True
        self.traffic[at] = Traffic(size)
        if data is not None:
            self.bytes[at : at + size] = data
            self.written[at : at + size] = True
        return at

    def load(self, at: np.ndarray, size: int, text: str) -> np.ndarray:
        """``size`` bytes for each lane."""
        self._check(at, size, text)
        if not all(self.written[at + k].all() for k in range(size)):
            raise PTXError(f"read of {self.space} memory that nobody wrote: {text}")
        return self.bytes.view(UNSIGNED[size])[at // size]

    def store(self, at: np.ndarray, values: np.ndarray, size: int, text: str) -> None:
        self._check(at, size, text)
        self.bytes.view(UNSIGNED[size])[at // size] = values
        for k in range(size):
            self.written[at + k] = True

    def forget(self, at: np.ndarray, size: int) -> None:
        """Bytes that are about to be overwritten, nobody can say when."""
        for k in range(size):
            self.written[at + k] = False

    def _check(self, at: np.ndarray, size: int, text: str) -> None:
        if (at % size).any():
            raise PTXError(f"misaligned access of {self.space} memory: {text}")
        inside = (at >= 0) & (at + size <= len(self.bytes))
        if not inside.all() or not (self.owned[at] & self.owned[at + size - 1]).all():
            raise PTXError(f"access of {self.space} memory out of bounds: {text}")
        for start, traffic in self.traffic.items():
            within = at[(at >= start) & (at < start + len(traffic.touched))] - start
            if len(within):
                traffic.add(within, size)
