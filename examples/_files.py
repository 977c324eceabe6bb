"""The published formats of image data sets: idx, CIFAR's pickles and binary files, SVHN's .mat."""

import codecs
import gzip
import hashlib
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

Part = tuple[Tensor, Tensor]  # images (N, C, H, W) of uint8, and labels
PIXELS = 3 * 32 * 32


def opened(file: Path) -> IO[bytes] | gzip.GzipFile:
    """The file, or what file.gz holds."""
    packed = file.with_name(f"{file.name}.gz")
    return file.open("rb") if file.is_file() or not packed.is_file() else gzip.open(packed)


def check(file: Path, md5: str) -> None:
    """Refuse a file whose content, unpacked, is not the published one."""
    with opened(file) as content:
        found = hashlib.md5(content.read()).hexdigest()
    if found != md5:
        raise ValueError(f"{file}: the md5 must be {md5}, got {found}: cut, or another file of that name")


def idx(file: Path) -> Tensor:
    """An array of bytes: two zeros, 8 for the type, the number of dims, each dim in four bytes, then the values."""
    with opened(file) as content:
        found = content.read()
    if found[:3] != b"\0\0\x08":
        raise ValueError(f"{file}: an idx file of bytes must start with 0, 0, 8, got {list(found[:3])}")
    dims = np.frombuffer(found, ">i4", found[3], 4)
    values = np.frombuffer(found, np.uint8, offset=4 + 4 * found[3])
    if values.size != dims.prod():
        raise ValueError(f"{file}: must hold {dims.tolist()} values, got {values.size}")
    return torch.from_numpy(values.reshape(dims).copy())


class _Arrays(pickle.Unpickler):
    """Unpickles arrays, and nothing that could run code."""

    known = {  # noqa: RUF012
        "_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype, "encode": codecs.encode,
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("numpy", "_codecs") and name in self.known:
            return self.known[name]
        raise pickle.UnpicklingError(f"a CIFAR batch holds arrays only, not {module}.{name}")


def pickled(file: Path) -> Part:
    """CIFAR for Python; of CIFAR-100 the 100 classes, not the 20 that they are grouped in."""
    with opened(file) as content:
        batch = _Arrays(content, encoding="bytes").load()
    batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    labels = batch["fine_labels"] if "fine_labels" in batch else batch["labels"]
    return _cifar(np.asarray(batch["data"], np.uint8), file), torch.tensor(labels)


def binary(file: Path, label_bytes: int) -> Part:
    """CIFAR as records: one label (of CIFAR-100 the coarse one, then the fine one) and the pixels."""
    content = np.fromfile(file, np.uint8)
    if content.size % (PIXELS + label_bytes):
        raise ValueError(f"{file}: {content.size} bytes are no whole number of images")
    records = content.reshape(-1, PIXELS + label_bytes)
    return _cifar(records[:, label_bytes:], file), torch.from_numpy(records[:, label_bytes - 1].astype(np.int64))


def _cifar(pixels: np.ndarray, file: Path) -> Tensor:
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise ValueError(f"{file}: images must have {PIXELS} bytes, got shape {pixels.shape}")
    return torch.from_numpy(np.ascontiguousarray(pixels)).view(-1, 3, 32, 32)


def mat(file: Path) -> Part:
    """SVHN: X (32, 32, 3, N), and y from 1 to 10, which stands for 0."""
    from scipy.io import loadmat

    found = loadmat(file)
    images = torch.from_numpy(np.ascontiguousarray(found["X"].transpose(3, 2, 0, 1)))
    return images, torch.from_numpy(found["y"].astype(np.int64).ravel() % 10)
