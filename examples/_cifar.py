"""CIFAR-10 from a folder on this machine, in the form for Python or the binary one; nothing is downloaded."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
TRAINING = [f"data_batch_{i}" for i in range(1, 6)]
TEST = "test_batch"
PIXELS = 3 * 32 * 32
EXPECTED = f"""CIFAR-10 must lie in a folder that holds, unpacked from cifar-10-python.tar.gz or cifar-10-binary.tar.gz,
  {TRAINING[0]} ... {TRAINING[-1]}, {TEST}   (pickles), or
  {TRAINING[0]}.bin ... {TRAINING[-1]}.bin, {TEST}.bin   (a byte of label, then {PIXELS} of an image, again and again);
{" or ".join(FOLDERS)} inside it will do too."""


class _Arrays(pickle.Unpickler):
    """Unpickles arrays, and nothing that could run code."""

    known = {  # noqa: RUF012
        "_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype, "encode": codecs.encode,
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("numpy", "_codecs") and name in self.known:
            return self.known[name]
        raise pickle.UnpicklingError(f"a CIFAR-10 batch holds arrays only, not {module}.{name}")


def cifar10(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, 3, 32, 32), uint8, their labels, and the same to test with."""
    for place in (folder, *(folder / name for name in FOLDERS)):
        for suffix, read in (("", _pickled), (".bin", _binary)):
            files = [place / f"{name}{suffix}" for name in (*TRAINING, TEST)]
            if all(file.is_file() for file in files):
                batches = [read(file) for file in files]
                images, labels = (torch.cat(parts) for parts in zip(*batches[:-1], strict=True))
                return images, labels, *batches[-1]
    raise FileNotFoundError(f"no CIFAR-10 in {folder}\n{EXPECTED}")


def _pickled(file: Path) -> tuple[Tensor, Tensor]:
    with file.open("rb") as opened:
        batch = _Arrays(opened, encoding="bytes").load()
    batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    return _images(np.asarray(batch["data"], np.uint8), file), torch.tensor(batch["labels"])


def _binary(file: Path) -> tuple[Tensor, Tensor]:
    content = np.fromfile(file, np.uint8)
    if content.size % (PIXELS + 1):
        raise ValueError(f"{file}: {content.size} bytes are no whole number of images\n{EXPECTED}")
    records = content.reshape(-1, PIXELS + 1)
    return _images(records[:, 1:], file), torch.from_numpy(records[:, 0].astype(np.int64))


def _images(pixels: np.ndarray, file: Path) -> Tensor:
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise ValueError(f"{file}: images must have {PIXELS} bytes, got shape {pixels.shape}\n{EXPECTED}")
    return torch.from_numpy(np.ascontiguousarray(pixels)).view(-1, 3, 32, 32)
