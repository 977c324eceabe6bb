"""The host's own memory as that of a GPU, of which only tensors that a call was given or made are anybody's."""

import ctypes

import numpy as np
import torch

from .memory import UNSIGNED, PTXError, Traffic


class Tensor:
    """The bytes of a tensor's storage, and which of them somebody wrote."""

    def __init__(self, storage: torch.UntypedStorage, written: bool) -> None:
        self.start, size = storage.data_ptr(), storage.nbytes()
        assert self.start % 16 == 0, "a storage that is not aligned as a GPU's are"
        self.storage, self.output = storage, not written
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.start))
        self.written, self.traffic = np.full(size, written), Traffic(size)


class Host:
    """Addresses are the host's; otherwise as ``Memory``."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.starts = np.zeros(0, np.int64)

    def own(self, t: torch.Tensor, written: bool) -> None:
        """A tensor of the call: of one that is not written every byte is to be, before it is read."""
        storage = t.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in self.tensors:
            self.tensors[storage.data_ptr()] = Tensor(storage, written)
            self.starts = np.array(sorted(self.tensors), np.int64)

    def fill(self, at: int, size: int) -> None:
        """The host wrote so many bytes from there on."""
        tensor = self._holding(np.array([at]), size, "fill")
        tensor.written[at - tensor.start : at - tensor.start + size] = True

    def wrote(self, t: torch.Tensor) -> None:
        """An op of torch wrote every element of it."""
        size, written = t.element_size(), self.tensors[t.untyped_storage().data_ptr()].written
        strides = [size * s for s in t.stride()]
        places = torch.from_numpy(written).as_strided([*t.shape, size], [*strides, 1], size * int(t.storage_offset()))
        places.fill_(True)

    def traffic(self) -> dict[int, Traffic]:
        """Of each tensor, since it was asked for last."""
        found = {start: tensor.traffic for start, tensor in self.tensors.items()}
        for tensor in self.tensors.values():
            tensor.traffic = Traffic(len(tensor.bytes))
        return found

    def load(self, at: np.ndarray, size: int, text: str) -> np.ndarray:
        """``size`` bytes for each lane."""
        found = np.empty(len(at), UNSIGNED[size])
        for tensor, lanes in self._parts(at, size, text):
            places = at[lanes] - tensor.start
            if not all(tensor.written[places + k].all() for k in range(size)):
                raise PTXError(f"read of global memory that nobody wrote: {text}")
            found[lanes] = _words(tensor, size)[places // size]
        return found

    def store(self, at: np.ndarray, values: np.ndarray, size: int, text: str) -> None:
        for tensor, lanes in self._parts(at, size, text):
            places = at[lanes] - tensor.start
            _words(tensor, size)[places // size] = values[lanes]
            for k in range(size):
                tensor.written[places + k] = True

    def _parts(self, at: np.ndarray, size: int, text: str):
        """The tensors that lanes point into, and which lanes those are."""
        if (at % size).any():
            raise PTXError(f"misaligned access of global memory: {text}")
        which = np.searchsorted(self.starts, at, "right")
        for place in np.unique(which):
            lanes = which == place if (which != place).any() else slice(None)
            tensor = self._holding(at[lanes], size, text)
            tensor.traffic.add(at[lanes] - tensor.start, size)
            yield tensor, lanes

    def _holding(self, at: np.ndarray, size: int, text: str) -> Tensor:
        before = self.starts[self.starts <= at.min()]
        tensor = self.tensors[int(before[-1])] if len(before) else None
        if tensor is None or int(at.max()) + size > tensor.start + len(tensor.bytes):
            raise PTXError(f"access of global memory out of bounds: {text}")
        return tensor


def _words(tensor: Tensor, size: int) -> np.ndarray:
    return tensor.bytes[: len(tensor.bytes) // size * size].view(UNSIGNED[size])
