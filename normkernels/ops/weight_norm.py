"""Weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._backends import requested, resolve
from normkernels._backends.reference.weight_norm import weight_norm_ref
from normkernels._library import Kernel, kernel
from normkernels.ops._buffers import empty, flat, statistic_dtype
from normkernels.ops._filters import check_weight, order, rows, shaped
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function, gradients

# v, w, dw, dv: contiguous (M, N), a filter in each row; w and dw in v's dtype, or in 16 bits beside a float32 v;
# g, dg: (M,), in v's dtype or float32; norm: (M,)
weight_norm_fwd: Kernel = kernel("weight_norm_fwd(Tensor v, Tensor g, Tensor(a!) w, Tensor(b!) norm)")
weight_norm_bwd: Kernel = kernel(
    "weight_norm_bwd(Tensor dw, Tensor v, Tensor g, Tensor norm, Tensor(a!) dv, Tensor(b!)? dg)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    dim: int | None  # None: one filter
    backend: str | None


class WeightNormRecipe(Recipe):
    """(v, g) -> (w,), in v's shape."""

    @staticmethod
    def run(v: Tensor, g: Tensor, settings: Settings) -> Filled:
        dims = order(v, settings.dim)
        filters = rows(v, dims, g.numel())
        w, norm = torch.empty_like(filters), filters.new_empty(g.numel(), dtype=statistic_dtype(v))
        weight_norm_fwd(filters, flat(g), w, norm, settings.backend)
        return (shaped(w, v, dims),), (v, g, norm)

    @staticmethod
    def composed(v: Tensor, g: Tensor, settings: Settings) -> tuple[Tensor, ...]:
        dims = order(v, settings.dim)
        w = weight_norm_ref(rows(v, dims, g.numel()), g.reshape(-1))
        return (shaped(w.to(v.dtype), v, dims),)

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, WeightNormRecipe, args, 1)

    @staticmethod
    def backward(ctx: Any, dw: Tensor) -> tuple[Tensor | None, ...]:
        v, g, norm = ctx.saved_tensors
        dim, backend = ctx.settings
        if differentiated_again():
            return *gradients(WeightNormRecipe, (v, g), (dw,), ctx.settings), None
        dims, filters = order(v, dim), g.numel()
        v_rows = rows(v, dims, filters)
        dv, dg = torch.empty_like(v_rows), empty(g, ctx.needs_input_grad[1])
        weight_norm_bwd(rows(dw, dims, filters), v_rows, flat(g), norm, dv, flat(dg), backend)
        return shaped(dv, v, dims), dg, None


@function
def weight_norm(v: Tensor, g: Tensor, dim: int | None = 0, *, backend: str | None = None) -> Tensor:
    r"""Weight normalisation: direction and length of each filter of a weight as two parameters.

    .. math::
        w_i = g_i \frac{v_i}{\|v_i\|_2}

    Args:
        v: the directions; float64, float32, bfloat16 or float16, any shape and strides, filters along ``dim``.
        g: the lengths, ``(M,)`` or the shape of ``torch.norm_except_dim(v, 2, dim)``; v's dtype or float32.
        dim: the dim of the M filters, 0 in linear and convolution weights. None or -1, as in torch: one filter, and g
            has one element.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        w, v's shape, dtype and layout; norms are in float32 (float64 for float64) and w is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout, dim or name is wrong.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: v and g, :math:`dg = \langle dw, v \rangle / \|v\|` and
    :math:`dv = \frac{g}{\|v\|} (dw - v \langle dw, v \rangle / \|v\|^2)`, at right angles to v; twice differentiable
    (through the reference; torch's own is wrong there). A filter of zeros has no direction: w and both gradients are 0
    there.
    Deterministic: yes.
    Differs from torch: zero filters are defined, double backward is right. Filters along another dim
    than the first are laid out as rows before, which costs two copies.

    Example:
        >>> w = nk.functional.weight_norm(torch.randn(4, 8), torch.full((4,), 2.0))
        >>> torch.allclose(w.norm(dim=1), torch.tensor(2.0))
        True

    Source: Salimans & Kingma 2016, arXiv:1602.07868, equations 2 and 3.
    """
    name = "weight_norm"
    check_weight(name, "v", v)
    if dim is not None and not -1 <= dim < v.dim():
        _checks.fail(name, "dim", f"be None or in [-1, {v.dim()})", dim)
    dim = None if dim == -1 else dim
    filters = 1 if dim is None else v.shape[dim]
    shapes = [(filters,), tuple(filters if d == dim else 1 for d in range(v.dim()))] + [()] * (dim is None)
    _checks.check_dense(name, "g", g)
    if tuple(g.shape) not in shapes:
        _checks.fail(name, "g", f"have shape {' or '.join(map(str, dict.fromkeys(shapes)))}", tuple(g.shape))
    _checks.check_parameter(name, "g", g, tuple(g.shape), v, like="v")
    return call(WeightNormRecipe, v, g, Settings(dim, requested(backend, name, v)))[0]


@torch.no_grad()
def project(weights: Sequence[Tensor], backend: str | None = None) -> None:
    """Every filter (slice along dim 0) of every weight scaled to length 1, in place, on each device at once.

    A filter of zeros stays so.
    """
    groups: dict[tuple, list[Tensor]] = {}
    for weight in weights:
        check_weight("project_unit_norm_", "weight", weight)
        if weight.numel():
            groups.setdefault((weight.device, weight.dtype), []).append(weight)
    for (device, _), group in groups.items():
        dense = [rows(w, order(w, 0), len(w)) for w in group]
        resolve("weight_norm_project", device.type, requested(backend, "project_unit_norm_"))(dense)
        for weight, filters in zip(group, dense, strict=True):
            if filters.data_ptr() != weight.data_ptr():
                weight.copy_(shaped(filters, weight, order(weight, 0)))
            torch.autograd.graph.increment_version(weight)
