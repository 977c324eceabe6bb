"""Layer normalisation over the trailing dims (Ba, Kiros & Hinton 2016, arXiv:1607.06450)."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels._library import kernel
from normkernels.backends import requested
from normkernels.backends.reference.layer_norm import layer_norm_ref
from normkernels.ops import _checks, _rows

# x, residual, dy, dsummed: (M, N), adjacent columns, any row stride; y, summed, dx: contiguous; mean, rstd: (M,)
FWD = (
    "(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, Tensor(a!) y, Tensor(b!)? summed, Tensor(c!) mean, "
    "Tensor(d!) rstd, float eps, float weight_offset, str activation, float slope)"
)
BWD = (
    "(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, Tensor(a!) dx, "
    "Tensor(b!)? dweight, Tensor(c!)? dbias, float weight_offset, str activation, float slope)"
)
layer_norm_fwd = kernel("layer_norm_fwd" + FWD)
layer_norm_bwd = kernel("layer_norm_bwd" + BWD)


class Layout(NamedTuple):
    """Where the normalised dim lies in memory: the ops for it, and the view they take."""

    fwd: Callable[..., None]
    bwd: Callable[..., None]
    view: Callable[[Tensor | None, int], Any]


ROWS = Layout(layer_norm_fwd, layer_norm_bwd, _rows.rows)


class LayerNormFunction(torch.autograd.Function):
    """(input, residual, weight, bias) -> y, or (y, summed) with a residual; N is the number of elements of weight."""

    @staticmethod
    def forward(ctx, input, residual, weight, bias, settings):
        n, layout, eps, weight_offset, activation, slope, backend = settings
        x = layout.view(input, n)
        y, summed = _rows.empty(input), _rows.empty(residual)
        mean, rstd = _rows.statistic(x), _rows.statistic(x)
        layout.fwd(
            x, layout.view(residual, n), _rows.flat(weight), _rows.flat(bias), layout.view(y, n),
            layout.view(summed, n), mean, rstd, eps, weight_offset, activation, slope, backend,
        )  # fmt: skip
        ctx.save_for_backward(input if summed is None else summed, weight, bias, mean, rstd)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        return y if summed is None else (y, summed)  # torch.compile fails on an output that is None

    @staticmethod
    def backward(ctx, dy, dsummed=None):
        input, weight, bias, mean, rstd = ctx.saved_tensors
        n, layout, eps, weight_offset, activation, slope, backend = ctx.settings
        dy = torch.zeros_like(input) if dy is None else dy
        if torch.is_grad_enabled():  # create_graph=True

            def reference(input, weight, bias):
                x, w, b = layout.view(input, n), _rows.flat(weight), _rows.flat(bias)
                y, _ = layer_norm_ref(x, None, w, b, eps, weight_offset, activation, slope)
                return y.view(input.shape), input

            dx, dweight, dbias = _rows.differentiable_backward(reference, (input, weight, bias), (dy, dsummed))
        else:
            x = layout.view(input, n)
            dx = _rows.empty(input)
            dweight, dbias = _rows.empty(weight, ctx.needs_input_grad[2]), _rows.empty(bias, ctx.needs_input_grad[3])
            layout.bwd(
                layout.view(dy, n), layout.view(dsummed, n), x, _rows.flat(weight),
                _rows.flat(bias), mean, rstd, layout.view(dx, n), _rows.flat(dweight), _rows.flat(dbias),
                weight_offset, activation, slope, backend,
            )  # fmt: skip
        dresidual = dx if ctx.needs_input_grad[1] else None
        return dx, dresidual, dweight, dbias, None


def layer_norm(
    input: Tensor,
    normalized_shape: int | list[int] | tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    slope: float = 0.01,
    weight_offset: float = 0.0,
    backend: str | None = None,
):
    r"""Layer normalisation over the trailing dims, with an optional residual before it and activation after it.

    .. math::
        s = x + \text{residual}, \quad \mu = \tfrac1N \textstyle\sum_i s_i, \quad
        \mathrm{rstd} = (\tfrac1N \textstyle\sum_i (s_i - \mu)^2 + \epsilon)^{-1/2}, \quad
        y = \text{activation}\big((s - \mu)\,\mathrm{rstd}\,(w + \text{weight\_offset}) + b\big)

    Args:
        input: x, ``(*, *normalized_shape)``; float64, float32, bfloat16 or float16; any strides.
        normalized_shape: the trailing dims to reduce over; N is their product, from 1 to well over a million.
        weight: w, ``normalized_shape``, in input's dtype or float32; None means no scale.
        bias: b, ``normalized_shape``, in input's dtype or float32; None means 0.
        eps: added to the variance (units of x²).
        residual: input's shape and dtype. s is rounded to input's dtype, then normalised, and returned too.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied after the affine.
        slope: of ``"leaky_relu"`` for negative values.
        weight_offset: added to weight; 1.0 gives the zero-centred form (1 + w). Without weight it does nothing.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, contiguous, input's shape and dtype; with a residual ``(y, s)``. Statistics are accumulated and kept in
        float32 (float64 for float64), and y is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong (the message says which, the rule and the value).
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, residual, weight, bias; through both outputs; twice differentiable (through the reference).
    Deterministic: yes, and a row's result does not depend on the other rows.
    Differs from torch: under autocast y keeps input's dtype; torch.func transforms are not supported.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 3 and 4.
    """
    _checks.check_input("layer_norm", input)
    shape = _checks.check_normalized_shape("layer_norm", input, normalized_shape)
    _checks.check_parameter("layer_norm", "weight", weight, shape, input)
    _checks.check_parameter("layer_norm", "bias", bias, shape, input)
    _checks.check_like_input("layer_norm", "residual", residual, input)
    activation = _checks.check_activation("layer_norm", activation)
    backend = requested(backend, "layer_norm")
    settings = prod(shape), ROWS, eps, weight_offset, activation, slope, backend
    return LayerNormFunction.apply(input, residual, weight, bias, settings)
