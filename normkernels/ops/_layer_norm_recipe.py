"""Layer normalisation: its ops and its recipe, which layer_norm_2d has too."""

from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels._backends.reference.layer_norm import layer_norm_ref
from normkernels._library import Kernel, kernel
from normkernels.ops import _inlined, _onnx, _rows
from normkernels.ops._buffers import differentiable_backward, empty, statistic
from normkernels.ops._rows import Layout
from normkernels.ops._ways import Filled, Recipe, differentiated_again, forward

# x, residual, gate, dy, dsummed: (M, N), adjacent columns, any row stride, or (..., N) with up to three dims of rows;
# y, summed, dx, dgate: contiguous (M, N); mean and rstd: (M,). {}: the gate, and its gradient
FWD = (
    "(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, {}Tensor(a!) y, Tensor(b!)? summed, Tensor(c!) mean, "
    "Tensor(d!) rstd, float eps, float weight_offset, str activation, float slope)"
)
BWD = (
    "(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, {}Tensor mean, Tensor rstd, Tensor(a!) dx, "
    "Tensor(b!)? dweight, Tensor(c!)? dbias, {}float weight_offset, str activation, float slope)"
)
layer_norm_fwd: Kernel = kernel("layer_norm_fwd" + FWD.format("Tensor? gate, "))
layer_norm_bwd: Kernel = kernel("layer_norm_bwd" + BWD.format("Tensor? gate, ", "Tensor(d!)? dgate, "))


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    layout: Layout
    dims: int  # how many of the last ones are normalised together; 0: dim 1 is
    eps: float
    weight_offset: float
    activation: str
    slope: float
    backend: str | None


ROWS = Layout(layer_norm_fwd, layer_norm_bwd, _rows.rows, _rows.runs, gated=True)


class LayerNormRecipe(Recipe):
    """(input, residual, weight, bias, gate) -> (y,), or (y, summed) with a residual."""

    materialize = False

    @staticmethod
    def run(
        input: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, gate: Tensor | None,
        settings: Settings,
    ) -> Filled:  # fmt: skip
        layout, dims, eps, *extras, backend = settings
        n = normalised(input, dims)
        y, summed = layout.like(input), None if residual is None else layout.like(input)
        out = layout.view(y, n)
        mean, rstd = statistic(out), statistic(out)
        layout.fwd(
            layout.read(input, n), layout.read(residual, n), _rows.parameter(weight, n), _rows.parameter(bias, n),
            *layout.gates(layout.read, gate, n), out, layout.view(summed, n), mean, rstd, eps, *extras, backend,
        )  # fmt: skip
        outputs = (y,) if summed is None else (y, summed)  # torch.compile fails on an output that is None
        return outputs, (input if summed is None else summed, weight, bias, gate, mean, rstd)

    @staticmethod
    def composed(
        input: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, gate: Tensor | None,
        settings: Settings,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        layout, dims, eps, *extras, _ = settings
        n = normalised(input, dims)
        w, b = _rows.parameter(weight, n), _rows.parameter(bias, n)
        # added before the view, or torch keeps two gradients in one memory and adds to both twice
        x = layout.view(input if residual is None else input + residual, n)
        found = layer_norm_ref(x, None, w, b, layout.view(gate, n), eps, *extras)
        return tuple(layout.shaped(t, input) for t in found[: 1 if residual is None else 2])

    @staticmethod
    def standard(*args: Any) -> tuple[Tensor, ...]:
        return _onnx.rows(F.layer_norm, *args)

    @staticmethod
    def inlined(
        input: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, gate: Tensor | None,
        settings: Settings,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        found = _onnx.rows(_inlined.layer_norm, input, residual, weight, bias, gate, settings)
        return tuple(settings.layout.dense(t) for t in found)

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, LayerNormRecipe, args, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dsummed: Tensor | None = None) -> tuple[Tensor | None, ...]:
        input, weight, bias, gate, mean, rstd = ctx.saved_tensors
        layout, dims, _, *extras, backend = ctx.settings
        dy = torch.zeros_like(input) if dy is None else dy
        if differentiated_again():

            def composed(input, weight, bias, gate):
                return LayerNormRecipe.composed(input, None, weight, bias, gate, ctx.settings)[0], input

            inputs = input, weight, bias, gate
            dx, dweight, dbias, dgate = differentiable_backward(composed, inputs, (dy, dsummed))
        else:
            n, dx = normalised(input, dims), layout.like(input)
            dweight, dbias = empty(weight, ctx.needs_input_grad[2]), empty(bias, ctx.needs_input_grad[3])
            dgate = empty(gate, ctx.needs_input_grad[4])
            layout.bwd(
                layout.read(dy, n), layout.read(dsummed, n), layout.read(input, n), _rows.parameter(weight, n),
                _rows.parameter(bias, n), *layout.gates(layout.read, gate, n), mean, rstd, layout.view(dx, n),
                _rows.parameter(dweight, n), _rows.parameter(dbias, n), *layout.gates(layout.view, dgate, n), *extras,
                backend,
            )  # fmt: skip
        dresidual = dx if ctx.needs_input_grad[1] else None
        return dx, dresidual, dweight, dbias, dgate, None


def normalised(input: Tensor, dims: int) -> int:
    """N, the number of values that are normalised together."""
    return prod(input.shape[input.dim() - dims :]) if dims else input.shape[1]
