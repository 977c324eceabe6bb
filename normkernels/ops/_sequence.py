"""A sequence as the recurrent ops walk it: its sizes, the buffers of a walk, and the states before each step."""

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels.ops._buffers import empty, flat, statistic_dtype
from normkernels.ops._products import weight_gradient


class Sizes(NamedTuple):
    """The sizes of a call. Rows of a sequence: those of the first step, then those of the second, and so on."""

    total: int  # rows of all steps
    batch: int
    hidden: int
    shape: tuple[int, ...]  # of y

    def like(self, input: Tensor, kept: bool, columns: int, wide: bool = False) -> Tensor:
        """An unfilled buffer with the rows of every step, or of one; in input's dtype, or in that of statistics."""
        dtype = statistic_dtype(input) if wide else input.dtype
        return input.new_empty(self.total if kept else self.batch, columns, dtype=dtype)


def sizes_of(input: Tensor, weight_hh: Tensor, batch_sizes: Tensor | None) -> Sizes:
    """Those of a checked call. A recipe asks again, for torch.compile takes no symbolic sizes as settings."""
    batch = input.shape[1] if batch_sizes is None else int(batch_sizes[0])
    hidden = weight_hh.shape[1]
    return Sizes(prod(input.shape[:-1]), batch, hidden, (*input.shape[:-1], hidden))


def flat_rows(input: Tensor) -> Tensor:
    """All rows of a sequence as a contiguous (total, columns)."""
    return input.reshape(-1, input.shape[-1]).contiguous()


def operands(input: Tensor, weight_hh: Tensor, *parameters: Tensor | None) -> tuple[Any, ...]:
    """What every op of a walk takes first."""
    return flat_rows(input), weight_hh.contiguous(), *map(flat, parameters)


def state(first: Tensor | None, like: Tensor, sequence: Sizes, wide: bool = False) -> Tensor:
    """A running state: a copy of the first, or zeros. Cells run in the dtype of the arithmetic."""
    dtype = statistic_dtype(like) if wide else like.dtype
    if first is None:
        return like.new_zeros(sequence.batch, sequence.hidden, dtype=dtype)
    return like.new_empty(sequence.batch, sequence.hidden, dtype=dtype).copy_(first)


def handed_out(y: Tensor, sequence: Sizes, kept: bool) -> Tensor:
    """y in its shape; a copy where it is kept for the backward, for what is handed out may be changed in place."""
    y = y.view(sequence.shape)
    return y.clone() if kept and not torch.compiler.is_compiling() else y


def composed(
    reference: Callable[..., Sequence[Tensor]], inputs: Sequence[Any], firsts: Sequence[Tensor | None],
    *others: Tensor | None, **options: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """What a reference finds, y and the last states, in input's dtype, and y in its shape.

    ``inputs`` are input, weight_hh and parameters; ``others``: statistics, and batch_sizes as the last.
    """
    input, weight_hh, *parameters = inputs
    sequence, widths = sizes_of(input, weight_hh, others[-1]), (weight_hh.shape[1], weight_hh.shape[0] // 4)
    states = [input.new_zeros(sequence.batch, n) if t is None else t for t, n in zip(firsts, widths, strict=False)]
    found = reference(flat_rows(input), weight_hh, *parameters, *states, *others, **options)
    y, *lasts = (t.to(input.dtype) for t in found)
    return y.view(sequence.shape), *lasts


class Cells(NamedTuple):
    """The buffers that the forward of an LSTM fills, whatever its norm."""

    h: Tensor  # h and c: the running states
    c: Tensor
    y: Tensor
    a: Tensor  # what is normalised
    gates: Tensor
    cells: Tensor  # as they are handed on
    raw_cells: Tensor | None  # before their norm, where the normalised ones are handed on


def cells_of(input: Tensor, h_0, c_0, sequence: Sizes, norm_cell: str | None, kept: bool) -> Cells:
    """Cells for a call; with rows for every step where they are kept."""
    hidden = sequence.hidden
    a, gates = (sequence.like(input, kept, 4 * hidden) for _ in range(2))
    cells = sequence.like(input, kept, hidden, wide=True)
    h, c = state(h_0, input, sequence), state(c_0, input, sequence, wide=True)
    return Cells(h, c, sequence.like(input, True, hidden), a, gates, cells, empty(cells, norm_cell == "carried"))


class WayBack(NamedTuple):
    """A backward through a sequence: what its op takes and fills, and the gradients that follow from it.

    ``inputs`` are those of a recipe: input, weight_hh, parameters, and as many first states as there are ``dstates``.
    """

    sequence: Sizes
    inputs: Sequence[Any]
    batch_sizes: Tensor | None
    reverse: bool
    dy: Tensor
    dstates: list[Tensor]
    dinput: Tensor
    da: Tensor | None  # of the recurrent term, where it is normalised apart
    dparameters: list[Tensor | None]
    others: int  # arguments of the recipe that have no gradient

    def before(self, values: Tensor, state: int) -> Tensor:
        """Of every row the value a step before; ``state``: which of the first states stands before the first step."""
        firsts = self.inputs[-len(self.dstates) :]
        return before(values, firsts[state], self.sequence.batch, self.batch_sizes, self.reverse)

    def gradients(self, previous: Tensor) -> tuple[Any, ...]:
        """After the op: of all arguments of the recipe. ``previous`` is h before each step."""
        dweight_hh = weight_gradient(self.dinput if self.da is None else self.da, previous)  # one serves all steps
        firsts = zip(self.inputs[-len(self.dstates) :], self.dstates, strict=True)
        dfirsts = [None if first is None else d.to(self.dy.dtype) for first, d in firsts]
        dinput = self.dinput.view(self.inputs[0].shape)
        return dinput, dweight_hh, *self.dparameters, *dfirsts, *[None] * self.others


def way_back(
    ctx, inputs: Sequence[Any], batch_sizes: Tensor | None, grads: Sequence[Any], separate: bool, reverse: bool
) -> WayBack:
    """The way back that starts with the gradients of y and of the last states."""
    sequence, dy, count = sizes_of(inputs[0], inputs[1], batch_sizes), flat_rows(grads[0]), len(grads) - 1
    dstates = [state(d, dy, sequence, wide=i == 1) for i, d in enumerate(grads[1:])]
    dinput = dy.new_empty(sequence.total, inputs[1].shape[0])
    wanted = ctx.needs_input_grad
    dparameters = [empty(p, w) for p, w in zip(inputs[2:-count], wanted[2 : len(inputs) - count], strict=True)]
    return WayBack(
        sequence, inputs, batch_sizes, reverse, dy, dstates, dinput, empty(dinput, separate), dparameters,
        len(wanted) - len(inputs),
    )  # fmt: skip


def before(values: Tensor, first: Tensor | None, batch: int, batch_sizes: Tensor | None, reverse: bool) -> Tensor:
    """For each row of a sequence the value that it had a step before; ``first`` (None: zeros) where there is none."""
    first = values.new_zeros(batch, values.shape[1]) if first is None else first.to(values.dtype)
    if batch_sizes is None:
        return torch.cat([values[batch:], first] if reverse else [first, values[: values.shape[0] - batch]])
    parts, at, above = [], 0, batch
    runs = runs_of(batch_sizes)
    for (size, count), (below, _) in itertools.pairwise([*runs, (0, 0)]):
        end = at + size * count
        if reverse:  # the rows that the next step lacks begin here
            parts += [values[at + size : end], values[end : end + below], first[below:size]]
        else:
            parts += [values[at - above :][:size] if at else first[:size], values[at : end - size]]
        at, above = end, size
    return torch.cat(parts)


def runs_of(batch_sizes: Tensor) -> list[tuple[int, int]]:
    """Steps of as many rows that follow each other: the rows, and how many steps."""
    sizes, counts = torch.unique_consecutive(batch_sizes, return_counts=True)
    return list(zip(sizes.tolist(), counts.tolist(), strict=True))


def filled_with(batch_sizes: Tensor, device: torch.device) -> Tensor:
    """batch_sizes on the device, each run of equal ones filled in there.

    A copy from the host would wait for the device, and a CUDA graph cannot capture it.
    """
    if device == batch_sizes.device:
        return batch_sizes
    return torch.cat([torch.full((count,), size, device=device) for size, count in runs_of(batch_sizes)])
