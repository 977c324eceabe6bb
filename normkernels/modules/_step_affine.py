"""A gain and a bias of each step: a sequence in as many calls as there are steps with parameters of their own."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from normkernels.ops._sequence import filled_with

Walk = Callable[[Tensor, Sequence[Tensor], Tensor | None, int], tuple[Tensor, ...]]


def walk_in_runs(
    walk: Walk, slots: int, reverse: bool, input: Tensor, states: Sequence[Tensor], sizes: Tensor | None
) -> tuple[Tensor, ...]:  # fmt: skip
    """(y, *states) of ``walk(input, states, sizes, slot)`` for the steps of each slot, in the order of the walk.

    A kernel takes one gain for all steps of a call; the steps beyond the last slot share one, and are one call.
    """
    steps = len(input) if sizes is None else len(sizes)
    ends = range(steps + 1) if sizes is None else [0, *itertools.accumulate(sizes.tolist())]
    ys = []
    for slot in range(min(steps, slots)):
        start, stop = slot, steps if slot == slots - 1 else slot + 1
        start, stop = (steps - stop, steps - start) if reverse else (start, stop)
        x = input[ends[start] : ends[stop]]
        if sizes is None:
            y, *states = walk(x, states, None, slot)
        else:
            own = sizes[start:stop]
            n = int(own[0])
            y, *new = walk(x, [s[:n] for s in states], own, slot)
            states = [torch.cat([a, s[n:]]) for a, s in zip(new, states, strict=True)]
        ys.append(y)
    return torch.cat(ys[::-1] if reverse else ys), *states


def of_slot(
    running: Sequence[Tensor | None], parameters: dict[str, Tensor | None], slot: int | None
) -> tuple[list[Tensor | None], dict[str, Tensor | None]]:  # fmt: skip
    """The running statistics, and the parameters, of one slot; None: all as they are."""
    if slot is None:
        return list(running), parameters
    own = [t if t is None else t[slot : slot + 1] for t in running]
    return own, {k: t if t is None or t.dim() == 1 else t[slot] for k, t in parameters.items()}


def affine_of_steps(
    xhat: Tensor, weight: Tensor, biases: Sequence[Tensor | None], sizes: Tensor | None, reverse: bool
) -> Tensor:
    """xhat, (T, B, columns) or packed, by weight and with biases added: each (slots, columns), or of all steps."""

    def of_rows(parameter: Tensor) -> Tensor:
        if parameter.dim() == 1:
            return parameter
        steps = len(xhat) if sizes is None else len(sizes)
        slots = torch.arange(steps, device=xhat.device).clamp(max=len(parameter) - 1)
        of_steps = parameter[slots.flip(0) if reverse else slots]
        if sizes is None:
            return of_steps.unsqueeze(1)
        return of_steps.repeat_interleave(filled_with(sizes, xhat.device), 0, output_size=len(xhat))

    y = xhat * of_rows(weight)
    for bias in biases:
        y = y if bias is None else y + of_rows(bias)
    return y.to(xhat.dtype)
