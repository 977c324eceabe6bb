"""What the filter family shares in Python: a weight as rows, one filter in each."""

from torch import Tensor

from normkernels import _checks


def check_weight(op: str, argument: str, weight: Tensor) -> None:
    """A weight must be a dense floating tensor with a dim."""
    _checks.check_dense(op, argument, weight)
    if weight.dtype not in _checks.DTYPES:
        _checks.fail(op, argument, "be float64, float32, bfloat16 or float16", weight.dtype)
    if weight.dim() == 0:
        _checks.fail(op, argument, "have at least one dimension", "a scalar")


def order(weight: Tensor, dim: int | None) -> list[int]:
    """The dims with ``dim`` first and the others as they lie in memory, so that most layouts are rows as they are."""
    others = [d for d in range(weight.dim()) if d != dim]
    return [*([] if dim is None else [dim]), *sorted(others, key=lambda d: -weight.stride(d))]


def rows(t: Tensor, dims: list[int], filters: int) -> Tensor:
    """``t`` as a contiguous (filters, N): a view where it lies so."""
    return t.permute(dims).reshape(filters, -1 if t.numel() else 0).contiguous()


def shaped(rows: Tensor, like: Tensor, dims: list[int]) -> Tensor:
    """The inverse of :func:`rows`: the shape of ``like``, its dims in the same order in memory."""
    back = sorted(range(len(dims)), key=dims.__getitem__)
    return rows.view([like.shape[d] for d in dims]).permute(back)
