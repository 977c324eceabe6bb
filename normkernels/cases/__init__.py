"""One table that the tests, ``python -m normkernels validate`` and the benchmark all walk: one file per normaliser."""

import importlib
import pkgutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One call. In the table tensors are float64 on the CPU, and their strides are part of the sample; None: absent."""

    id: str
    call: dict[str, Any]  # the arguments that are no tensors
    tensors: Mapping[str, Tensor | None]
    cotangents: tuple[Tensor, ...]  # one for each output
    dims: tuple[int, ...]  # of input: what one statistic is taken over
    big: bool = False  # beyond what stays on chip; slow where kernels are interpreted

    def __repr__(self) -> str:
        return self.id

    @property
    def first(self) -> Tensor:
        """Of its tensors the one that gives shape and dtype: input, or a weight."""
        return next(t for t in self.tensors.values() if t is not None)

    def present(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.tensors.items() if t is not None}


@dataclass(frozen=True, eq=False, repr=False)
class Op:
    """A normaliser: the public function, the same thing as a user of torch would write it, and its samples."""

    stem: str
    function: Callable  # function(**tensors, **call, backend=...)
    torch: Callable | None  # torch(**tensors, **call)
    samples: Sequence[Sample]
    make: Callable[..., Sample]  # a random one: make(shape, dtype, device, <added>=, activation=, parameter_dtype=)
    parameters: tuple[str, ...] = ("weight", "bias")  # those whose dtype may differ from input's
    added: str = "residual"  # the optional tensor like input: a residual is returned as a second output, a skip is not
    state: tuple[str, ...] = ()  # tensors without a gradient that a call may update
    kind: str = "norm"  # of input; "filters": of a weight; "normprop": a product and what follows it
    rounded: bool = False  # whether what a product gives is rounded to input's dtype on the way

    def __repr__(self) -> str:
        return self.stem


def seeded(name: str) -> torch.Generator:
    """A generator of its own for each sample, so that adding one does not change the others."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def adversarial(generator: torch.Generator, shape: Sequence[int], dims: Sequence[int]) -> Tensor:
    """A third of the rows (the slices along ``dims``) N(0, 1), a third 30 + N(0, 1), a third 1e-3 N(0, 1)."""
    rows = [1 if d in dims else n for d, n in enumerate(shape)]
    kind = (torch.arange(torch.Size(rows).numel()).view(rows) + 1) % 3
    scale = torch.where(kind == 2, 1e-3, 1.0).double()
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale + 30.0 * (kind == 1)


def _find() -> dict[str, Op]:
    stems = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return {stem: importlib.import_module(f"{__name__}.{stem}").OP for stem in stems}


OPS = _find()
