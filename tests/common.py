"""What several test files need: every backend on every device here, and small calls."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from normkernels._backends import NAMES, unusable
from normkernels.cases import OPS, Op, Sample
from normkernels.cases._channels import last

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TARGETS = [(backend, device) for device in DEVICES for backend in NAMES]

STATEFUL = [OPS[stem] for stem in ("batch_renorm", "online_norm", "streaming_norm")]
CHANNELS = [*(OPS[stem] for stem in ("batch_norm", "group_norm", "instance_norm")), *STATEFUL]
NORMS = [op for op in OPS.values() if op.kind == "norm"]
BY_ROW = [op for op in NORMS if op.stem != "batch_norm" and op not in STATEFUL]

every_op = pytest.mark.parametrize("op", NORMS, ids=str)
every_channel_op = pytest.mark.parametrize("op", CHANNELS, ids=str)
every_stateful_op = pytest.mark.parametrize("op", STATEFUL, ids=str)
every_op_by_row = pytest.mark.parametrize("op", BY_ROW, ids=str)  # whose rows (images) know nothing of each other
every_op_with_residual = pytest.mark.parametrize("op", [op for op in NORMS if op.added == "residual"], ids=str)
every_layout = pytest.mark.parametrize("layout", [torch.Tensor.contiguous, last], ids=["contiguous", "channels_last"])
every_target = pytest.mark.parametrize(("backend", "device"), [pytest.param(*t, id="-".join(t)) for t in TARGETS])


def kernels(op: Op) -> list[str]:
    """The names of its ops."""
    ways = ("fwd", "bwd", "apply", "moments", "sums", "dx") if op.stem == "batch_norm" else ("fwd", "bwd")
    return [f"{op.stem}_{way}" for way in ways]


def centred(op: Op) -> bool:
    """Whether it takes a mean off, which its forward then keeps."""
    schema = getattr(torch.ops.normkernels, f"{op.stem}_fwd").default._schema
    return "mean" in [a.name for a in schema.arguments]


def need(op: Op, backend: str, device: str) -> None:
    """Skip, with the reason, where the backend cannot run the op."""
    for kernel in kernels(op):
        reason = unusable(backend, kernel, device)
        if reason:
            pytest.skip(f"{backend} on {device}: {reason}")


def scanned(op: Op, backend: str, device: str) -> bool:
    """Whether Triton's interpreter walks its samples one by one: a second for a hundred of them."""
    return op.stem == "online_norm" and backend == "triton" and device == "cpu"


def small(
    op: Op,
    rows: int = 6,
    columns: int = 33,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    added: bool = False,
    **extras,
) -> Sample:
    """A random sample with that many rows (images) of that many columns (channels); ``added``: residual or skip too."""
    torch.manual_seed(0)
    shape = (rows, columns) if op.samples[0].tensors["input"].dim() == 2 else (rows, columns, 2, 3)
    return op.make(shape, dtype, device, **{op.added: added}, **extras)


def call(op: Op, sample: Sample, backend: str | None = None, **changes):
    """op on a sample, with some arguments replaced; the state of the sample stays as it is."""
    tensors = {k: t.clone() if k in op.state else t for k, t in sample.present().items()}
    return op.function(**(tensors | sample.call | {"backend": backend} | changes))


def leaves(op: Op, sample: Sample) -> dict[str, torch.Tensor]:
    """Those of its tensors that may need a gradient, as leaves that do."""
    return {k: t.detach().requires_grad_() for k, t in sample.present().items() if k not in op.state}


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Parameters that are not ones and zeros."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape))
    return module


class Recorder(TorchDispatchMode):
    """Keeps the calls of this package's ops."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.namespace == "normkernels":
            self.calls.append((op, [a.detach() if isinstance(a, torch.Tensor) else a for a in args]))
        return op(*args, **(kwargs or {}))


class ScaledAndShifted(torch.nn.Module):
    """A norm whose call is given scale and shift of each sample, for tracers."""

    def __init__(self, norm: torch.nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x, t):
        return self.norm(x, scale=t, shift=t)
