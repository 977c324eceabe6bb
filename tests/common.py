"""What several test files need: every backend on every device here, and small calls."""

import pytest
import torch

from normkernels.backends import NAMES, unusable
from normkernels.cases import OPS, Op, Sample

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TARGETS = [(backend, device) for device in DEVICES for backend in NAMES]

every_op = pytest.mark.parametrize("op", OPS.values(), ids=str)
every_target = pytest.mark.parametrize(("backend", "device"), [pytest.param(*t, id="-".join(t)) for t in TARGETS])


def need(op: Op, backend: str, device: str) -> None:
    """Skip, with the reason, where the backend cannot run the op."""
    for kernel in (f"{op.stem}_fwd", f"{op.stem}_bwd"):
        reason = unusable(backend, kernel, device)
        if reason:
            pytest.skip(f"{backend} on {device}: {reason}")


def small(op: Op, rows: int = 6, columns: int = 33, dtype: torch.dtype = torch.float32, device: str = "cpu", **extras):
    """A random sample with that many rows (images) of that many columns (channels)."""
    torch.manual_seed(0)
    shape = (
        (rows, columns) if op.samples[0].dims == (op.samples[0].tensors["input"].dim() - 1,) else (rows, columns, 2, 3)
    )
    return op.make(shape, dtype, device, **extras)


def call(op: Op, sample: Sample, backend: str | None = None, **changes):
    """op on a sample, with some arguments replaced."""
    return op.function(**(sample.present() | sample.call | {"backend": backend} | changes))
