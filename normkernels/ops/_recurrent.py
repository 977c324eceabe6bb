"""What the recurrent functions ask of their arguments."""

import itertools

import torch
from torch import Tensor

from normkernels import _checks, _record
from normkernels.ops._sequence import Sizes, sizes_of

GROUPS = {"joint": [[1], None, [3], [4]], "gate": [[1], None, [1, 1, 1], [1] * 4], "rz": [None, None, [2, 1], None]}
TERMS = ("separate", "sum")
CELLS = (None, "output", "carried")


def check_sequence(
    op: str, input: Tensor, weight_hh: Tensor, gates: int, batch_sizes: Tensor | None,
    weight_hr: Tensor | None = None, **states: Tensor | None,
) -> Sizes:  # fmt: skip
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
