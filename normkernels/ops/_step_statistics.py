"""Batch norm of the steps of a sequence: the running statistics of each step, and how they move."""

from typing import NamedTuple

import torch
from torch import Tensor

from normkernels import _checks
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._sequence import Sizes, filled_with
from normkernels.ops._state import write


class Statistics(NamedTuple):
    """The running statistics of a batch norm, (slots, columns): of the first steps of a walk; the last one is reused.

    An update in training weighs the batch with ``momentum``. All of it in the dtype that it has.
    """

    mean: Tensor
    var: Tensor

    def of_steps(self, steps: int, reverse: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(T, columns) each, of the steps in time's order."""
        slots = torch.arange(steps, device=self.mean.device).clamp(max=len(self.mean) - 1)
        slots = slots.flip(0) if reverse else slots
        return self.mean.to(dtype)[slots], self.var.to(dtype)[slots]

    def update(self, mean: Tensor, var: Tensor, sizes: Tensor, momentum: float, reverse: bool) -> None:
        """With the population statistics (T, columns) of steps of so many rows, in time's order."""
        sizes = filled_with(sizes, var.device).to(var.dtype).unsqueeze(1)
        unbiased = var * (sizes / (sizes - 1))
        for running, found in ((self.mean, mean), (self.var, unbiased)):
            write(running, _averaged(running.detach(), found.flip(0) if reverse else found, momentum))


def _averaged(running: Tensor, found: Tensor, momentum: float) -> Tensor:
    """Each slot moved on by its step, and the last one by all that are left, one after the other."""
    found, last = found.to(running.dtype), len(running) - 1
    own = min(len(found), last)
    moved = [torch.lerp(running[:own], found[:own], momentum), running[own:last], running[last:]]
    left = len(found) - last
    if left > 0:
        decays = (1 - momentum) ** torch.arange(left - 1, -1, -1, device=found.device, dtype=found.dtype)
        arrived = momentum * (decays.unsqueeze(1) * found[last:]).sum(0)
        moved[2] = moved[2] * (1 - momentum) ** left + arrived
    return torch.cat(moved)


def check_statistics(op: str, input: Tensor, columns: int, needed: bool, **tensors: Tensor | None) -> Statistics | None:
    """running_mean and running_var, (slots, columns) each, or both None."""
    present = [t for t in tensors.values() if t is not None]
    for name, t in tensors.items():
        if t is None:
            if present or needed:
                rule = "be a tensor, as the other is" if present else "be a tensor without training"
                _checks.fail(op, name, rule, None)
            continue
        _checks.check_dense(op, name, t)
        if t.dim() != 2 or t.shape[1] != columns or len(t) == 0 or t.shape != present[0].shape:
            _checks.fail(op, name, f"have shape (slots, {columns}), as the other", tuple(t.shape))
        _checks.check_parameter(op, name, t, tuple(t.shape), input)
    return Statistics(*present) if present else None


def rows_of_steps(sequence: Sizes, batch_sizes: Tensor | None, device: torch.device) -> Tensor:
    """(T,); on that device from the start where they are all the same, so that nothing is copied there."""
    if batch_sizes is not None:
        return batch_sizes
    steps = sequence.total // sequence.batch if sequence.batch else 1
    return torch.full((steps,), sequence.batch, device=device)


def first_statistics(
    op: str, input: Tensor, sequence: Sizes, sizes: Tensor, columns: int, running: Statistics | None,
    training: bool, reverse: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean and variance of each step: the running ones, or unfilled in training, which needs two rows in every step."""
    dtype, steps = statistic_dtype(input), len(sizes)
    if not training and running is not None:
        return running.of_steps(steps, reverse, dtype)
    if (sequence.batch if len(sequence.shape) == 3 else int(sizes[-1])) == 1:
        rule = "have more than one row in every step in training (layer norm needs no batch)"
        _checks.fail(op, "input", rule, "a step of one row")
    return input.new_empty(steps, columns, dtype=dtype), input.new_empty(steps, columns, dtype=dtype)
