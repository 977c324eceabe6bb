"""Two norms are the same where copies with random numbers in them compute the same."""

import contextlib
import copy
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normkernels.conversion.become import become

Calls = tuple[tuple[int, dict[str, Any]], ...]  # so many tensors, and arguments with a name


class Candidate(NamedTuple):
    """A module of ours that may compute the same, and calls with tensors of each shape, in which both have to agree."""

    template: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    calls: Calls = ((1, {}),)


def first(module: nn.Module, candidates: Iterable[Candidate]) -> nn.Module | None:
    """The template of the first one that agrees with the module."""
    for candidate in candidates:
        with contextlib.suppress(Exception):  # whatever it raises for such an input, it is another kind of norm
            calls = product(candidate.shapes, candidate.calls)
            if all(_agree(module, candidate.template, shape, *call) for shape, call in calls):
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
def _agree(module: nn.Module, template: nn.Module, shape: tuple[int, ...], count: int, named: dict[str, Any]) -> bool:
    """Whether copies compute the same, in training and not, state, dtypes and layout included."""
    old, generator = randomized(module)
    new = copy.deepcopy(old)
    become(new, template)
    inputs = draw(count, shape, generator)
    for training in (True, False):
        for m in (old, new):
            m.train(training)
        outputs = list(zip(_call(old, inputs, named), _call(new, inputs, named), strict=True))
        if not all(y.shape == z.shape and y.dtype == z.dtype and _close(y, z) for y, z in outputs):
            return False
        theirs = dict(old.named_buffers())
        if not all(_close(t, theirs[k]) for k, t in new.named_buffers() if k in theirs):
            return False
    if any(y.stride() != z.stride() for y, z in outputs):
        return False
    narrow = [t.bfloat16() for t in inputs]
    mixed = [narrow[0], *inputs[1:]]
    for weights in (torch.float32, torch.bfloat16):
        both = old.to(weights), new.to(weights)
        if not all(_same_dtypes(*both, tensors, named) for tensors in (inputs, narrow, mixed)):
            return False
    return True


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, 1e-4, 1e-5)


def _same_dtypes(old: nn.Module, new: nn.Module, inputs: list[Tensor], named: dict[str, Any]) -> bool:
    """Whether outputs have the same dtypes, where the old one takes such inputs."""
    dtypes = _dtypes(old, inputs, named)
    return dtypes is None or dtypes == _dtypes(new, inputs, named)


def _dtypes(module: nn.Module, inputs: list[Tensor], named: dict[str, Any]) -> list[torch.dtype] | None:
    """Of the outputs; None where it does not take these inputs."""
    try:
        return [t.dtype for t in _call(module, inputs, named)]
    except (RuntimeError, ValueError):
        return None


def _call(module: Any, inputs: list[Tensor], named: dict[str, Any]) -> tuple[Tensor, ...]:
    """All that the forward returns; a tuple of one tensor, which is not that tensor, is taken for no output at all."""
    found = type(module).forward(module, *inputs, **named)
    return (found,) if isinstance(found, Tensor) else found if len(found) > 1 else ()
