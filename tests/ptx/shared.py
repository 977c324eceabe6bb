"""The shared memory of a cluster's blocks, of which accesses of different blocks are to be ordered by barriers.

Known of a byte is which block wrote it last and which others read it last, and how many barriers of the cluster those
threads had arrived at. What another block does comes after that only where it has waited for one barrier more.
"""

import numpy as np

from .memory import UNSIGNED, PTXError

FAR = 2**24  # bytes from one block's shared memory to the next one's, where a cluster's is one
WINDOW = 2**56  # where shared memory begins among generic addresses
MANY = -2  # blocks


class History:
    """Of the bytes of one block's shared memory; -1: nobody, never."""

    def __init__(self, size: int) -> None:
        self.writer, self.wrote, self.reader, self.read = np.full((4, size), -1, np.int32)
        self.visited = -1  # barriers that a thread of another block had arrived at when it was here last


class Window:
    """What one block sees: its own memory at 0, and that of rank r at (r + 1) FAR."""

    def __init__(self, block, blocks: list) -> None:
        self.block, self.blocks = block, blocks

    def load(self, at: np.ndarray, size: int, text: str) -> np.ndarray:
        """``size`` bytes for each lane."""
        found = np.empty(len(at), UNSIGNED[size])
        for owner, lanes in self._parts(at, text):
            places = at[lanes] % FAR
            found[lanes] = owner.own.load(places, size, text)
            self._after_writes(owner, places, size, text)
            if owner is not self.block:
                self._note_reads(owner.history, places, size)
        return found

    def store(self, at: np.ndarray, values: np.ndarray, size: int, text: str) -> None:
        for owner, lanes in self._parts(at, text):
            places = at[lanes] % FAR
            owner.own.store(places, values[lanes], size, text)
            self._after_writes(owner, places, size, text)
            self._after_reads(owner.history, places, size, text)
            for k in range(size):
                owner.history.writer[places + k] = self.block.rank
                owner.history.wrote[places + k] = self._arrived()

    def forget(self, at: np.ndarray, size: int) -> None:
        self.block.own.forget(at, size)

    def _parts(self, at: np.ndarray, text: str):
        """The blocks that lanes point into, and which lanes those are."""
        for which in np.unique(at // FAR):
            if which > len(self.blocks):
                raise PTXError(f"access of shared memory out of bounds: {text}")
            owner = self.blocks[which - 1] if which else self.block
            if owner is not self.block:
                if owner.ended.all():
                    raise PTXError(f"shared memory of a block that has ended: {text}")
                if not self._waited():
                    raise PTXError(f"shared memory of a block that may not have begun: {text}")
                owner.history.visited = max(owner.history.visited, self._arrived())
            yield owner, at // FAR == which

    def _arrived(self) -> int:
        return int(self.block.arrived[self.block.lanes].max())

    def _waited(self) -> int:
        return int(self.block.waited[self.block.lanes].min())

    def _after_writes(self, owner, places: np.ndarray, size: int, text: str) -> None:
        """Another block's writes lie before a barrier at which that block released them."""
        at = (places[:, None] + np.arange(size)).ravel()
        for rank in np.unique(owner.history.writer[at]):
            if rank not in (-1, self.block.rank):
                seen = max((n for n in self.blocks[rank].releases if n < self._waited()), default=-1)
                if (owner.history.wrote[at][owner.history.writer[at] == rank] > seen).any():
                    raise PTXError(f"no barrier since another block wrote this: {text}")

    def _note_reads(self, history: History, places: np.ndarray, size: int) -> None:
        at = (places[:, None] + np.arange(size)).ravel()
        alone = np.isin(history.reader[at], (-1, self.block.rank))
        history.reader[at] = np.where(alone, self.block.rank, MANY)
        history.read[at] = np.maximum(history.read[at], self._arrived())

    def _after_reads(self, history: History, places: np.ndarray, size: int, text: str) -> None:
        at = (places[:, None] + np.arange(size)).ravel()
        if ((history.reader[at] != self.block.rank) & (history.read[at] >= self._waited())).any():
            raise PTXError(f"no barrier since another block read this: {text}")
