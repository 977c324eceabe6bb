"""Root-mean-square normalisation over the trailing dims (Zhang & Sennrich 2019, arXiv:1910.07467)."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple, Unpack, overload

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels._backends.reference.rms_norm import rms_norm_ref
from normkernels._library import Kernel, kernel
from normkernels.ops import _inlined, _onnx, _rows
from normkernels.ops._buffers import differentiable_backward, empty, statistic
from normkernels.ops._ragged import is_ragged, of_values
from normkernels.ops._rows import GatedOptions
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function

# x, residual, gate, dy, dsummed: (M, N), adjacent columns, any row stride, or (..., N) with up to three dims of rows;
# y, summed, dx, dgate: contiguous (M, N); rstd: (M,)
rms_norm_fwd: Kernel = kernel(
    "rms_norm_fwd(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, Tensor? gate, Tensor(a!) y, "
    "Tensor(b!)? summed, Tensor(c!) rstd, float eps, float weight_offset, str activation, float slope)"
)
rms_norm_bwd: Kernel = kernel(
    "rms_norm_bwd(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, Tensor? gate, Tensor rstd, "
    "Tensor(a!) dx, Tensor(b!)? dweight, Tensor(c!)? dbias, Tensor(d!)? dgate, float weight_offset, str activation, "
    "float slope)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    dims: int  # how many of the last ones are normalised together
    eps: float
    weight_offset: float
    activation: str
    slope: float
    backend: str | None


class RMSNormRecipe(Recipe):
    """(input, residual, weight, bias, gate) -> (y,), or (y, summed) with a residual."""

    materialize = False

    @staticmethod
    def run(
        input: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, gate: Tensor | None,
        settings: Settings,
    ) -> Filled:  # fmt: skip
        dims, *numbers = settings
        n = prod(input.shape[input.dim() - dims :])
        y, summed = empty(input), empty(residual)
        out = _rows.rows(y, n)
        rstd = statistic(out)
        rms_norm_fwd(
            _rows.runs(input, n), _rows.runs(residual, n), _rows.parameter(weight, n), _rows.parameter(bias, n),
            _rows.runs(gate, n), out, _rows.rows(summed, n), rstd, *numbers,
        )  # fmt: skip
        outputs = (y,) if summed is None else (y, summed)  # torch.compile fails on an output that is None
        return outputs, (input if summed is None else summed, weight, bias, gate, rstd)

    @staticmethod
    def composed(
        input: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, gate: Tensor | None,
        settings: Settings,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        dims, *numbers, _ = settings
        n = prod(input.shape[input.dim() - dims :])
        w, b = _rows.parameter(weight, n), _rows.parameter(bias, n)
        # added before the view, or torch keeps two gradients in one memory and adds to both twice
        x = _rows.rows(input if residual is None else input + residual, n)
        found = rms_norm_ref(x, None, w, b, _rows.rows(gate, n), *numbers)
        return tuple(t.view(input.shape) for t in found[: 1 if residual is None else 2])

    @staticmethod
    def standard(*args: Any) -> tuple[Tensor, ...]:
        return _onnx.rows(_onnx.rms_norm, *args)

    @staticmethod
    def inlined(*args: Any) -> tuple[Tensor, ...]:
        return tuple(t.contiguous() for t in _onnx.rows(_inlined.rms_norm, *args))

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, RMSNormRecipe, args, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dsummed: Tensor | None = None) -> tuple[Tensor | None, ...]:
        input, weight, bias, gate, rstd = ctx.saved_tensors
        dims, _, *extras = ctx.settings
        dy = torch.zeros_like(input) if dy is None else dy
        if differentiated_again():

            def composed(input, weight, bias, gate):
                return RMSNormRecipe.composed(input, None, weight, bias, gate, ctx.settings)[0], input

            inputs = input, weight, bias, gate
            dx, dweight, dbias, dgate = differentiable_backward(composed, inputs, (dy, dsummed))
        else:
            n = prod(input.shape[input.dim() - dims :])
            dx, dgate = empty(input), empty(gate, ctx.needs_input_grad[4])
            dweight, dbias = empty(weight, ctx.needs_input_grad[2]), empty(bias, ctx.needs_input_grad[3])
            rms_norm_bwd(
                _rows.runs(dy, n), _rows.runs(dsummed, n), _rows.runs(input, n), _rows.parameter(weight, n),
                _rows.parameter(bias, n), _rows.runs(gate, n), rstd, _rows.rows(dx, n), _rows.parameter(dweight, n),
                _rows.parameter(dbias, n), _rows.rows(dgate, n), *extras,
            )  # fmt: skip
        return dx, dx if ctx.needs_input_grad[1] else None, dweight, dbias, dgate, None


@overload
def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    eps: float | None = None, *, bias: Tensor | None = None, residual: None = None, **options: Unpack[GatedOptions],
) -> Tensor: ...  # fmt: skip
@overload
def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    eps: float | None = None, *, bias: Tensor | None = None, residual: Tensor, **options: Unpack[GatedOptions],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@function
def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    eps: float | None = None, *, bias: Tensor | None = None, residual: Tensor | None = None,
    gate: Tensor | None = None, activation: Activation | None = None, slope: float = 0.01, weight_offset: float = 0.0,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    r"""Root-mean-square normalisation over the trailing dims, a residual before it and an activation or gate after it.

    .. math::
        s = x + \text{residual}, \quad \mathrm{rstd} = (\tfrac1N \textstyle\sum_i s_i^2 + \epsilon)^{-1/2}, \quad
        u = s\,\mathrm{rstd}\,(w + \text{weight\_offset}) + b, \quad
        y = \text{activation}(u), \text{ or } u \cdot \text{activation}(\text{gate})

    Args:
        input: x, ``(*, *normalized_shape)``; float64, float32, bfloat16 or float16; any strides; or a jagged nested
            tensor that is not ragged in these dims. Read where it lies, heads of packed queries and keys too; copied
            first where values of a row are not adjacent, or where rows lie at more than three distances (by
            ``"native"`` on CUDA: more than one).
        normalized_shape: the trailing dims to reduce over; N is their product, from 1 to well over a million.
        weight: w, ``normalized_shape``, in any of these dtypes; None means no scale. ``(B, *normalized_shape)`` is
            one for each of the B samples of input's dim 0: 1 + scale of adaptive layer norm (DiT), the gain of FiLM.
        eps: added to the mean square (units of x²). None: what torch takes, ``torch.finfo(torch.float64).eps`` for
            float64 and ``torch.finfo(torch.float32).eps`` for the others.
        bias: b, ``normalized_shape``, or ``(B, *normalized_shape)`` where weight is not ``normalized_shape``;
            in any of these dtypes; None means 0.
        residual: input's shape. s is in the wider dtype of both, rounded to it, then normalised, and returned too.
        gate: input's shape and dtype; the activation is then the gate's, and multiplies: ``"silu"`` (swish) or
            ``"sigmoid"`` in gated linear attention (FLA's FusedRMSNormGated), ``"silu"`` in Mamba-2's RMSNormGated
            with ``norm_before_gate=True``. None: the activation is of u.
        activation: None or a name of ``normkernels.ACTIVATIONS``, of u or of the gate.
        slope: of ``"leaky_relu"`` for negative values.
        weight_offset: added to weight; 1.0 gives Gemma's (1 + w). Without weight it does nothing.
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
        >>> x, w = torch.randn(4, 16), torch.zeros(16)
        >>> nk.functional.rms_norm(x, 16, w, weight_offset=1.0).shape
        torch.Size([4, 16])

    Source: Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.
    """
    if type(input) is not Tensor and is_ragged(input):
        options = {"activation": activation, "slope": slope, "weight_offset": weight_offset, "backend": backend}
        return of_values(
            "rms_norm",
            rms_norm,
            input,
            normalized_shape,
            weight,
            eps,
            bias=bias,
            residual=residual,
            gate=gate,
            **options,
        )
    _checks.check_input("rms_norm", input)
    _checks.check_like_input("rms_norm", "residual", residual, input)
    _checks.check_gate("rms_norm", gate, input)
    shape = _checks.check_normalized_shape("rms_norm", input, normalized_shape)
    if residual is not None or input.dtype.itemsize == 2:
        input, residual, weight, bias, gate = _checks.prepared("rms_norm", input, residual, weight, bias, gate)
    weight, bias = _as_input(weight, input), _as_input(bias, input)
    each = _rows.parameter_shape(input, shape, weight, bias)
    _checks.check_parameter("rms_norm", "weight", weight, each, input)
    _checks.check_parameter("rms_norm", "bias", bias, each, input)
    activation = _checks.check_activation("rms_norm", activation)
    backend = requested(backend, "rms_norm", input)
    if eps is None:
        eps = torch.finfo(torch.float64 if input.dtype == torch.float64 else torch.float32).eps
    _checks.check_eps("rms_norm", eps)
    settings = Settings(len(shape), eps, weight_offset, activation, slope, backend)
    found: Any = call(RMSNormRecipe, input, residual, weight, bias, gate, settings)
    return found[0] if residual is None else found


def _as_input(parameter: Any, input: Tensor) -> Any:
    """A parameter of any of our dtypes in one that the kernels take beside input."""
    if isinstance(parameter, Tensor) and parameter.dtype in _checks.DTYPES and parameter.dtype != input.dtype:
        return parameter.to(torch.float32 if input.dtype.itemsize == 2 else input.dtype)
    return parameter
