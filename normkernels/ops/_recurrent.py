"""What the recurrent family shares in Python: checks, buffers, and the states before each step."""

import itertools
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from normkernels import _checks, _record
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._state import write

GROUPS = {"joint": [[1], None, [3], [4]], "gate": [[1], None, [1, 1, 1], [1] * 4], "rz": [None, None, [2, 1], None]}
TERMS = ("separate", "sum")
CELLS = (None, "output", "carried")


class Sequence(NamedTuple):
    """The sizes of a call. Rows of a sequence: those of the first step, then those of the second, and so on."""

    total: int  # rows of all steps
    batch: int
    hidden: int
    shape: tuple[int, ...]  # of y

    def like(self, input: Tensor, kept: bool, columns: int, wide: bool = False) -> Tensor:
        """An unfilled buffer with the rows of every step, or of one; in input's dtype, or in that of statistics."""
        dtype = statistic_dtype(input) if wide else input.dtype
        return input.new_empty(self.total if kept else self.batch, columns, dtype=dtype)


def check_sequence(
    op: str, input: Tensor, weight_hh: Tensor, gates: int, batch_sizes: Tensor | None,
    weight_hr: Tensor | None = None, **states: Tensor | None,
) -> Sequence:  # fmt: skip
    """input (T, B, gates H), or packed (total, gates H) with batch_sizes; weight_hh (gates H, H); states (B, H).

    With a projection, weight_hr (P, H), of h: weight_hh (gates H, P), and h is (B, P).
    """
    _checks.check_input(op, input)
    _checks.check_dense(op, "weight_hh", weight_hh)
    hidden = _hidden_size(op, weight_hh, gates, weight_hr)
    if weight_hh.dtype != input.dtype:
        _checks.fail(op, "weight_hh", f"have input's dtype {input.dtype}", weight_hh.dtype)
    _checks.check_device(op, "weight_hh", weight_hh, input)
    columns, projected = weight_hh.shape
    dims, form = (3, f"(T, B, {columns})") if batch_sizes is None else (2, f"(rows, {columns}) beside batch_sizes")
    if input.dim() != dims or input.shape[-1] != columns:
        _checks.fail(op, "input", f"have shape {form}", tuple(input.shape))
    if batch_sizes is None:
        steps, batch = input.shape[:2]
        if steps == 0:
            _checks.fail(op, "input", "have at least one step", tuple(input.shape))
    else:
        batch = _check_batch_sizes(op, batch_sizes, len(input))
    for name, state in states.items():
        if state is None:
            continue
        _checks.check_dense(op, name, state)
        shape = batch, projected if name == "h_0" else hidden
        if tuple(state.shape) != shape:
            _checks.fail(op, name, f"have shape {shape}", tuple(state.shape))
        if state.dtype != input.dtype:
            _checks.fail(op, name, f"have input's dtype {input.dtype}", state.dtype)
        _checks.check_device(op, name, state, input)
    return sizes_of(input, weight_hh, batch_sizes)


def _hidden_size(op: str, weight_hh: Tensor, gates: int, weight_hr: Tensor | None) -> int:
    shape = tuple(weight_hh.shape)
    if weight_hr is None:
        if len(shape) != 2 or shape[0] != gates * shape[1] or shape[1] == 0:
            _checks.fail(op, "weight_hh", f"have shape ({gates} * hidden_size, hidden_size)", shape)
        return shape[1]
    _checks.check_dense(op, "weight_hr", weight_hr)
    if weight_hr.dim() != 2 or shape != (gates * weight_hr.shape[1], weight_hr.shape[0]) or 0 in shape:
        rule = f"have shape (proj_size, hidden_size) beside a weight_hh ({gates} * hidden_size, proj_size)"
        _checks.fail(op, "weight_hr", rule, f"{tuple(weight_hr.shape)} beside {shape}")
    if weight_hr.dtype != weight_hh.dtype:
        _checks.fail(op, "weight_hr", f"have weight_hh's dtype {weight_hh.dtype}", weight_hr.dtype)
    _checks.check_device(op, "weight_hr", weight_hr, weight_hh, "weight_hh")
    return weight_hr.shape[1]


def sizes_of(input: Tensor, weight_hh: Tensor, batch_sizes: Tensor | None) -> Sequence:
    """Of a call that was checked. A recipe asks again, for torch.compile takes no symbolic sizes as settings."""
    batch = input.shape[1] if batch_sizes is None else int(batch_sizes[0])
    hidden = weight_hh.shape[1]
    return Sequence(prod(input.shape[:-1]), batch, hidden, (*input.shape[:-1], hidden))


def _check_batch_sizes(op: str, batch_sizes: Tensor, rows: int) -> int:
    if not isinstance(batch_sizes, Tensor) or batch_sizes.dtype != torch.int64 or batch_sizes.is_cuda:
        got = f"{batch_sizes.dtype} on {batch_sizes.device}" if isinstance(batch_sizes, Tensor) else batch_sizes
        _checks.fail(op, "batch_sizes", "be None or an int64 tensor on the CPU", got)
    _record.refuse("it depends on the sizes of its steps, which are values")
    sizes = batch_sizes.tolist() if batch_sizes.dim() == 1 else []
    if not sizes or sizes[-1] < 1 or any(a < b for a, b in itertools.pairwise(sizes)):
        _checks.fail(op, "batch_sizes", "be (T,), at least 1 and not increasing", batch_sizes.tolist())
    if sum(sizes) != rows:
        _checks.fail(op, "batch_sizes", f"sum up to the rows of input, {rows}", sum(sizes))
    return sizes[0]


def check_parameters(op: str, input: Tensor, columns: int, **parameters: Tensor | None) -> None:
    for name, parameter in parameters.items():
        _checks.check_parameter(op, name, parameter, (columns,), input)


def check_cell_parameters(op: str, input: Tensor, hidden: int, norm_cell: str | None, weight, bias) -> None:
    """Those of the cell's norm, which there must then be."""
    if norm_cell not in CELLS:
        _checks.fail(op, "norm_cell", "be None, 'output' or 'carried'", repr(norm_cell))
    for name, parameter in {"cell_weight": weight, "cell_bias": bias}.items():
        if parameter is not None and norm_cell is None:
            _checks.fail(op, name, "be None where norm_cell is", "a tensor")
    check_parameters(op, input, hidden, cell_weight=weight, cell_bias=bias)


def check_groups(op: str, norm_over: str, gates: int) -> list[int]:
    """Gates of each group that is normalised together."""
    names = [name for name, groups in GROUPS.items() if groups[gates - 1] is not None]
    if norm_over not in names:
        _checks.fail(op, "norm_over", f"be one of {', '.join(map(repr, names))}", repr(norm_over))
    return list(GROUPS[norm_over][gates - 1] or [])


def check_terms(op: str, norm_terms: str) -> bool:
    """Whether the input's term is normalised apart."""
    if norm_terms not in TERMS:
        _checks.fail(op, "norm_terms", "be 'separate' or 'sum'", repr(norm_terms))
    return norm_terms == "separate"


def check_nonlinearity(op: str, nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        _checks.fail(op, "nonlinearity", "be 'tanh' or 'relu'", repr(nonlinearity))
    return nonlinearity


def flat_rows(input: Tensor) -> Tensor:
    """All rows of a sequence as a contiguous (total, columns)."""
    return input.reshape(-1, input.shape[-1]).contiguous()


def state(first: Tensor | None, like: Tensor, sequence: Sequence, wide: bool = False) -> Tensor:
    """A running state: a copy of the first, or zeros. Cells run in the dtype of the arithmetic."""
    dtype = statistic_dtype(like) if wide else like.dtype
    if first is None:
        return zeros(like, sequence).to(dtype)
    return like.new_empty(sequence.batch, sequence.hidden, dtype=dtype).copy_(first)


def zeros(like: Tensor, sequence: Sequence) -> Tensor:
    """A first state."""
    return like.new_zeros(sequence.batch, sequence.hidden)


def handed_out(y: Tensor, sequence: Sequence, kept: bool) -> Tensor:
    """y in its shape; a copy where it is kept for the backward, for what is handed out may be changed in place."""
    y = y.view(sequence.shape)
    return y.clone() if kept and not torch.compiler.is_compiling() else y


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


def rows_of_steps(sequence: Sequence, batch_sizes: Tensor | None, device: torch.device) -> Tensor:
    """(T,); on that device from the start where they are all the same, so that nothing is copied there."""
    if batch_sizes is not None:
        return batch_sizes
    steps = sequence.total // sequence.batch if sequence.batch else 1
    return torch.full((steps,), sequence.batch, device=device)


def first_statistics(
    op: str, input: Tensor, sequence: Sequence, sizes: Tensor, columns: int, running: Statistics | None,
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
