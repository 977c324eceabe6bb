"""What is timed: an op on a shape, and everyone who can compute it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from normkernels import tolerance
from normkernels._backends import NAMES, backends
from normkernels.cases import OPS, Op, Sample

from . import liger
from .timing import cache_bytes

PEERS = ("torch", "compile", "liger")
CHANNELS = ("batch_norm", "group_norm", "instance_norm", "online_norm", "batch_renorm", "streaming_norm")
UNCOMPILED = ("online_norm",)  # a loop over samples: torch.compile would unroll it
# tensors of input's size that are read or written at least: x -> y; dy, x -> dx; with a residual also its sum, and
# their dys; with a skip also that, and with an activation after it (dy, x, skip) -> (dx, dskip)
MINIMUM = {
    "plain": {"fwd": 2, "bwd": 3}, "residual": {"fwd": 4, "bwd": 4}, "skip": {"fwd": 3, "bwd": 3},
    "skip+activation": {"fwd": 3, "bwd": 5},
}  # fmt: skip
# the same where what a statistic is taken over fits in no cache, and a sweep for the statistics reads it all before
SWEEPS = {
    "plain": {"fwd": 3, "bwd": 5}, "skip": {"fwd": 4, "bwd": 5}, "skip+activation": {"fwd": 4, "bwd": 8},
}  # fmt: skip
ADDED = ("residual", "skip")  # extras that are tensors; any other is an activation
CHECKED = 1 << 16  # elements: all channels and as many whole rows or pixels, so that the float64 check stays cheap


def available(op: str, device: str) -> list[str]:
    """Our fused backends that run ``op`` here (the reference if there is none), the peers installed, and the copy."""
    reasons = backends(device)[op.split("+")[0] + "_fwd"]
    fused = [name for name in ("triton", "native") if reasons[name] is None]
    installed = ["liger"] if liger.INSTALLED and device == "cuda" and op in liger.FUNCTIONS else []
    compiled = [] if op.split("+")[0] in UNCOMPILED else ["compile"]
    return [*(fused or ["reference"]), "torch", *compiled, *installed, "copy"]


@dataclass(frozen=True)
class Task:
    """One op with its extras (``rms_norm+residual``, ``batch_norm+skip+relu``) on one shape (``8x96x56x56:nhwc``)."""

    op: str
    shape: str
    dtype: torch.dtype
    device: str
    own: tuple[tuple[str, Callable], ...] = ()  # functions of --with, by what they are called

    @property
    def stem(self) -> str:
        return self.op.split("+")[0]

    @property
    def extras(self) -> list[str]:
        return self.op.split("+")[1:]

    @cached_property
    def case(self) -> Op:
        """The op, with every provider as a backend, so that one check judges them all."""
        op, functions = OPS[self.stem], self.functions

        def function(*, backend, **arguments):
            if backend in functions:
                return functions[backend](**arguments)
            return op.function(**arguments, backend=backend)

        return replace(op, function=function)

    @cached_property
    def functions(self) -> dict[str, Callable]:
        op = OPS[self.stem]
        torch.compiler.reset()
        compiled = torch.compile(op.torch, fullgraph=True, dynamic=False)
        peers = {"torch": op.torch, "compile": compiled, "liger": liger.FUNCTIONS.get(self.op, liger.missing)}
        return peers | dict(self.own)

    @property
    def extents(self) -> list[int]:
        return [int(n) for n in self.shape.split(":")[0].split("x")]

    def parameter_dtype(self, provider: str) -> torch.dtype:
        """Ours take float32 parameters beside 16 bits; peers get the dtype of x, which is their fast path."""
        return torch.float32 if provider in NAMES and self.dtype.itemsize == 2 else self.dtype

    def make(self, extents, dtype, device) -> Sample:
        options = {e: True for e in self.extras if e in ADDED}
        options["activation"] = next((e for e in self.extras if e not in ADDED), None)
        if self.shape.endswith(":nhwc"):
            options["channels_last"] = True
        return self.case.make(tuple(extents), dtype, device, **options)

    @property
    def kind(self) -> str:
        """What decides how many tensors are moved: a key of MINIMUM."""
        added = next((e for e in self.extras if e in ADDED), "plain")
        return "skip+activation" if added == "skip" and len(self.extras) == 2 else added

    @property
    def tables(self) -> int:
        """Bytes of what online norm keeps of each channel of each sample: in an (N, C) input as much as x."""
        if self.stem != "online_norm":
            return 0
        N, C, *space = self.extents
        return N * C * (2 if math.prod(space) == 1 else 4) * max(4, self.dtype.itemsize)

    def minimum_bytes(self, mode: str) -> int:
        """What the op must read and write, without the parameters and the statistics of a channel."""
        return self._bytes(MINIMUM, mode)

    def sweeps(self, mode: str) -> float | None:
        """By how much more it moves when its statistics take a sweep of their own; None where a row fits in a cache."""
        return self._bytes(SWEEPS, mode) / self._bytes(MINIMUM, mode) if self.stem in CHANNELS else None

    def _bytes(self, moved: dict, mode: str) -> int:
        return moved[self.kind][mode] * math.prod(self.extents) * self.dtype.itemsize + self.tables

    def worst(self, provider: str) -> float:
        """The worst error of a provider in units of what is allowed, on fewer rows or pixels of the same length."""
        parameters = self.parameter_dtype(provider)
        reports = tolerance.check(self.case, self.small, provider, self.dtype, self.device, parameters)
        return max(r.worst for r in reports)

    @cached_property
    def small(self) -> Sample:
        extents = self.extents
        for axis in [0, *range(2, len(extents))]:
            least = min(2, extents[axis])  # one image alone is a case of its own
            extents[axis] = max(least, min(extents[axis], extents[axis] * CHECKED // math.prod(extents)))
        return self.make(extents, torch.float64, "cpu")

    def sets(self) -> list[Sample]:
        """Several sets of inputs, together well beyond the last-level cache."""
        size = math.prod(self.extents) * self.dtype.itemsize
        wanted = math.ceil(4 * cache_bytes(self.device) / size)
        least = 1 if self.device == "cuda" else 2
        return [self.make(self.extents, self.dtype, self.device) for _ in range(max(least, min(wanted, 64)))]

    def calls(self, provider: str, mode: str, sets: list[Sample]) -> list[Callable]:
        """One call for each set of inputs."""
        if provider == "copy":
            return [_copy(self.minimum_bytes(mode), self.device) for _ in sets]
        return [self._call(provider, mode, sample) for sample in sets]

    def _call(self, provider: str, mode: str, sample: Sample) -> Callable:
        wider = dict.fromkeys(self.case.parameters, self.parameter_dtype(provider))
        tensors = {k: t.detach().to(wider.get(k, t.dtype)) for k, t in sample.present().items()}
        state = {k: tensors.pop(k).clone() for k in self.case.state if k in tensors}  # each call moves it on
        leaves = {k: t.detach().requires_grad_() for k, t in tensors.items()}
        function = self.functions.get(provider) or partial(OPS[self.case.stem].function, backend=provider)
        forward = partial(function, **leaves, **state, **sample.call)
        if mode == "fwd":
            return forward
        return partial(torch.autograd.grad, forward(), list(leaves.values()), sample.cotangents, retain_graph=True)


def _copy(total: int, device: str) -> Callable[[], Tensor]:
    source = torch.rand(total // 8, device=device)  # read half the bytes as float32, write the other half
    return partial(torch.empty_like(source).copy_, source)
