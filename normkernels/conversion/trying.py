"""Two norms are the same where copies with random numbers in them compute the same."""

import contextlib
import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normkernels.conversion.become import become


class Candidate(NamedTuple):
    """A module of ours that may compute the same, and inputs on which both have to agree, ``count`` of a shape."""

    template: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    count: int = 1


def first(module: nn.Module, candidates: Iterable[Candidate]) -> nn.Module | None:
    """The template of the first one that agrees with the module."""
    for candidate in candidates:
        with contextlib.suppress(Exception):  # whatever it raises for such an input, it is another kind of norm
            if all(_agree(module, candidate.template, shape, candidate.count) for shape in candidate.shapes):
                return candidate.template
    return None


def randomized(module: nn.Module) -> tuple[nn.Module, torch.Generator]:
    """A copy in float32 with numbers that are not ones and zeros, and the generator that they came from."""
    copied = copy.deepcopy(module).float()
    tensors = [t for t in [*copied.parameters(), *copied.buffers()] if t.is_floating_point()]
    generator = torch.Generator(tensors[0].device).manual_seed(0)
    for t in tensors:
        t.data.uniform_(0.5, 1.5, generator=generator)
    return copied, generator


def draw(count: int, shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(shape, device=generator.device, generator=generator) for _ in range(count)]


@torch.no_grad()
def _agree(module: nn.Module, template: nn.Module, shape: tuple[int, ...], count: int) -> bool:
    """Whether copies compute the same, in training and not, state, dtypes and layout included."""
    old, generator = randomized(module)
    new = copy.deepcopy(old)
    become(new, template)
    inputs = draw(count, shape, generator)
    for training in (True, False):
        for m in (old, new):
            m.train(training)
        y, z = _call(old, *inputs), _call(new, *inputs)
        if y.shape != z.shape or y.dtype != z.dtype or not torch.allclose(y, z, 1e-4, 1e-5):
            return False
        theirs = dict(old.named_buffers())
        if not all(torch.allclose(t, theirs[k], 1e-4, 1e-5) for k, t in new.named_buffers() if k in theirs):
            return False
    if y.stride() != z.stride():
        return False
    narrow = [t.bfloat16() for t in inputs]
    wide = _same_dtype(old, new, narrow)
    return wide and _same_dtype(old.bfloat16(), new.bfloat16(), inputs)


def _same_dtype(old: nn.Module, new: nn.Module, inputs: list[Tensor]) -> bool:
    """Whether outputs have one dtype, where the old one takes such inputs."""
    dtype = _dtype(old, *inputs)
    return dtype is None or dtype == _dtype(new, *inputs)


def _dtype(module: nn.Module, *inputs: Tensor) -> torch.dtype | None:
    """Of the output; None where it does not take these inputs."""
    try:
        return _call(module, *inputs).dtype
    except (RuntimeError, ValueError):
        return None


def _call(module: Any, *inputs: Tensor) -> Tensor:
    return type(module).forward(module, *inputs)
