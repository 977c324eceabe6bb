"""Layer normalisation over the trailing dims (Ba, Kiros & Hinton 2016, arXiv:1607.06450)."""

from collections.abc import Sequence
from typing import Any, Unpack, overload

from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels.ops import _rows
from normkernels.ops._layer_norm_recipe import ROWS, LayerNormRecipe, Settings
from normkernels.ops._ragged import is_ragged, of_values
from normkernels.ops._rows import GatedOptions
from normkernels.ops._ways import call, function


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
