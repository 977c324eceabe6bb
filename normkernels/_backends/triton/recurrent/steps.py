"""Recurrent: the walk over the steps of a sequence, a product and a kernel each."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from normkernels._backends.triton.base.launch import alignment

THREADS = 256  # of a program at the most: then each has all the registers that one may have


class SequenceStep(NamedTuple):
    """A step of ``n`` rows: the first of them in a sequence, and in a buffer that may be kept of one step alone."""

    t: int
    start: int
    own: int
    n: int


def steps(a: Tensor, total: int, batch: int, batch_sizes: Tensor | None, reverse: bool) -> Iterator[SequenceStep]:
    """In the order in which they are walked."""
    sizes = [batch] * (total // batch) if batch_sizes is None else batch_sizes.tolist()
    starts = [0, *itertools.accumulate(sizes)]
    times = range(len(sizes))
    for t in reversed(times) if reverse else times:
        yield SequenceStep(t, starts[t], starts[t] if len(a) == total else 0, sizes[t])


def forward_steps(a) -> Iterator[SequenceStep]:
    """Each step of a forward op, a = weight_hh h of its rows done."""
    for step in steps(a.a, len(a.y), len(a.h), a.batch_sizes, a.reverse):
        torch.mm(a.h[: step.n], a.weight_hh.t(), out=a.a[step.own : step.own + step.n])
        yield step


def backward_steps(a, add: bool = False) -> Iterator[SequenceStep]:
    """Each step backwards, and dh = weight_hh^T da after it; ``add``: beside what the step left in dh."""
    da = a.dinput if a.da is None else a.da
    for step in steps(da, len(da), len(a.dh), a.batch_sizes, not a.reverse):
        yield step
        own, rows = a.dh[: step.n], da[step.start : step.start + step.n]
        if add:
            torch.addmm(own, rows, a.weight_hh, out=own)
        else:
            torch.mm(rows, a.weight_hh, out=own)


def values_per_thread(like: Tensor, N: int, most: int) -> int:
    """128 bits of them; half as many where N forbids such accesses, as every value then has a mask of its own."""
    size = 16 // like.element_size()
    return min(most, size) // (1 if alignment(like, N) == size else 2)
