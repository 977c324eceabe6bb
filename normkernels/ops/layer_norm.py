"""Layer normalisation over the trailing dims (Ba, Kiros & Hinton 2016, arXiv:1607.06450)."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple, Unpack, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels._backends.reference.layer_norm import layer_norm_ref
from normkernels._library import Kernel, kernel
from normkernels.ops import _inlined, _onnx, _rows
from normkernels.ops._buffers import differentiable_backward, empty, statistic
from normkernels.ops._ragged import is_ragged, of_values
from normkernels.ops._rows import GatedOptions, Layout
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function

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
    ) -> tuple[Tensor, ...] | None:  # fmt: skip
        if not settings.dims:  # Inductor would turn the layout
            return None
        found = _onnx.rows(_inlined.layer_norm, input, residual, weight, bias, gate, settings)
        return tuple(t.contiguous() for t in found)

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


@overload
def layer_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *, residual: None = None, **options: Unpack[GatedOptions],
) -> Tensor: ...  # fmt: skip
@overload
def layer_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *, residual: Tensor, **options: Unpack[GatedOptions],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@function
def layer_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *, residual: Tensor | None = None, gate: Tensor | None = None,
    activation: Activation | None = None, slope: float = 0.01, weight_offset: float = 0.0, backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    r"""Layer normalisation over the trailing dims, with an optional residual before it, activation or gate after it.

    .. math::
        s = x + \text{residual}, \quad \mu = \tfrac1N \textstyle\sum_i s_i, \quad
        \mathrm{rstd} = (\tfrac1N \textstyle\sum_i (s_i - \mu)^2 + \epsilon)^{-1/2}, \quad
        u = (s - \mu)\,\mathrm{rstd}\,(w + \text{weight\_offset}) + b, \quad
        y = \text{activation}(u), \text{ or } u \cdot \text{activation}(\text{gate})

    Args:
        input: x, ``(*, *normalized_shape)``; float64, float32, bfloat16 or float16; any strides; or a jagged nested
            tensor that is not ragged in these dims. Read where it lies, heads of packed queries and keys too; copied
            first where values of a row are not adjacent, or where rows lie at more than three distances (by
            ``"native"`` on CUDA: more than one).
        normalized_shape: the trailing dims to reduce over; N is their product, from 1 to well over a million.
        weight: w, ``normalized_shape``, in input's dtype or float32; None means no scale. ``(B, *normalized_shape)`` is
            one for each of the B samples of input's dim 0: 1 + scale of adaptive layer norm (DiT), the gain of FiLM.
        bias: b, ``normalized_shape``, or ``(B, *normalized_shape)`` where weight is not ``normalized_shape``;
            in input's dtype or float32; None means 0.
        eps: added to the variance (units of x²).
        residual: input's shape. s is in the wider dtype of both, rounded to it, then normalised, and returned too.
        gate: input's shape and dtype; the activation is then the gate's, and multiplies: ``"silu"`` (swish) or
            ``"sigmoid"`` in gated linear attention (FLA's FusedLayerNormGated). None: the activation is of u.
        activation: None or a name of ``normkernels.ACTIVATIONS``, of u or of the gate.
        slope: of ``"leaky_relu"`` for negative values.
        weight_offset: added to weight; 1.0 gives the zero-centred form (1 + w). Without weight it does nothing.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, contiguous, input's shape and dtype; with a residual ``(y, s)``, both in the wider dtype of the two.
        Statistics are accumulated and kept in float32 (float64 for float64), and y is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong (the message says which, the rule and the value).
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, residual, weight, bias, gate; through both outputs; twice differentiable (through the reference).
    Deterministic: yes, and a row's result does not depend on the other rows.
    Under autocast as torch: 16-bit input is taken in float32 on CUDA, and as it is on the CPU.

    Example:
        >>> x, skip, w = torch.randn(4, 16), torch.randn(4, 16), torch.ones(16)
        >>> y, s = nk.functional.layer_norm(x, 16, w, residual=skip, activation="gelu")
        >>> torch.equal(s, x + skip)
        True

    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 3 and 4.
    """
    if type(input) is not Tensor and is_ragged(input):
        options = {"activation": activation, "slope": slope, "weight_offset": weight_offset, "backend": backend}
        return of_values(
            "layer_norm",
            layer_norm,
            input,
            normalized_shape,
            weight,
            bias,
            eps,
            residual=residual,
            gate=gate,
            **options,
        )
    _checks.check_input("layer_norm", input)
    _checks.check_like_input("layer_norm", "residual", residual, input)
    _checks.check_gate("layer_norm", gate, input)
    if residual is not None or input.dtype.itemsize == 2:
        input, residual, weight, bias, gate = _checks.prepared("layer_norm", input, residual, weight, bias, gate)
    shape = _checks.check_normalized_shape("layer_norm", input, normalized_shape)
    each = _rows.parameter_shape(input, shape, weight, bias)
    _checks.check_parameter("layer_norm", "weight", weight, each, input)
    _checks.check_parameter("layer_norm", "bias", bias, each, input)
    _checks.check_eps("layer_norm", eps)
    activation = _checks.check_activation("layer_norm", activation)
    backend = requested(backend, "layer_norm", input)
    settings = Settings(ROWS, len(shape), eps, weight_offset, activation, slope, backend)
    found: Any = call(LayerNormRecipe, input, residual, weight, bias, gate, settings)
    return found[0] if residual is None else found
