"""Backend "triton" on CPU tensors: every launch is compiled for a GPU and its PTX run."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from normkernels import _backends, _replays
from normkernels._backends.triton.base import clusters
from tests.compiled import launches

from .grid import packed, run
from .memory import GAP, Memory, Traffic
from .parser import parse

Edit = Callable[[str], str]


class Launched(NamedTuple):
    """A launch that ran, and what it moved between each tensor, by its storage's address, and its blocks.

    cluster: how many blocks along each axis are one.
    """

    kernel: str
    traffic: dict[int, Traffic]
    cluster: tuple[int, ...] = (1, 1, 1)


class Runner:
    """In place of JITFunction.run; kernels are compiled once."""

    def __init__(self, order: random.Random | None, edit: Edit, arch: int) -> None:
        self.order, self.edit, self.launched, self.compiled = order, edit, [], {}
        self.target = GPUTarget("cuda", arch, 32)

    def launch(self, kernel, args: tuple, grid: Any, options: dict) -> None:
        """Compile, copy the tensors in, run, and copy them out."""
        given = dict(zip(kernel.arg_names, args, strict=False)) | options
        made = launches.specialise(kernel, args, options, "")

        def value(place):
            found = given[kernel.arg_names[place[0]]]
            for field in place[1:]:
                found = found[field]
            return found

        def places_of(place, kind):
            return (
                [place]
                if isinstance(kind, str)
                else [p for k, (_, of_field) in enumerate(kind) for p in places_of((*place, k), of_field)]
            )

        divisible = tuple(p for p in made.divisible if _multiple(value(p)))
        made = made._replace(divisible=divisible)
        constant = {place for place, *_ in made.constants}
        places = [p for i, (_, kind) in enumerate(made.signature) for p in places_of((i,), kind)]
        values = [value(p) for p in places if p not in constant]
        code, metadata = self._compile(made)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in values if isinstance(t, torch.Tensor)}
        memory = Memory(sum(s.nbytes() + 2 * GAP for s in storages.values()) + 4 * GAP, "global")
        at = {key: memory.allocate(s.nbytes(), _bytes(s).numpy()) for key, s in storages.items()}
        programs: Any = grid(given) if callable(grid) else grid
        x, *others = (*programs, 1, 1)[:3]
        run(
            code,
            memory,
            packed(code, [_address(v, at) if isinstance(v, torch.Tensor) else v for v in values]),
            (x * made.num_ctas, *others),
            (32 * metadata.num_warps, 1, 1),
            metadata.shared,
            self.order,
        )
        for key, s in storages.items():
            _bytes(s).copy_(torch.from_numpy(memory.bytes[at[key] : at[key] + s.nbytes()]))
        self.launched.append(Launched(made.kernel, {key: memory.traffic[at[key]] for key in storages}))

    def _compile(self, made):
        if made not in self.compiled:
            found = triton.compile(launches.source(made), target=self.target, options=made.options)
            self.compiled[made] = parse(self.edit(found.asm["ptx"])), found.metadata
        return self.compiled[made]


def _multiple(value) -> bool:
    return not isinstance(value, torch.Tensor) or value.data_ptr() % 16 == 0


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _address(t: torch.Tensor, at: dict[int, int]) -> int:
    return at[t.untyped_storage().data_ptr()] + int(t.storage_offset()) * t.element_size()


@contextlib.contextmanager
def running(order: random.Random | None = None, edit: Edit = str, arch: int = 90) -> Iterator[list[Launched]]:
    """Backend "triton" takes CPU tensors here; ``edit`` may change the PTX. What it patches it undoes."""
    runner, most = Runner(order, edit, arch), clusters.most(triton.__version__, arch // 10)
    patched = [
        (JITFunction, "run", lambda kernel, *args, grid, warmup, **options: runner.launch(kernel, args, grid, options)),
        (torch.cuda, "device_of", lambda _: contextlib.nullcontext()),
        (_backends, "_triton_unusable", lambda _: None),
        (clusters, "blocks", lambda _: most),
        (_replays, "replay", lambda *_: None),  # which would learn what the runner does
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in patched]
    for owner, name, value in patched:
        setattr(owner, name, value)
    _backends.resolve.cache_clear()
    try:
        yield runner.launched
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)
        _backends.resolve.cache_clear()
