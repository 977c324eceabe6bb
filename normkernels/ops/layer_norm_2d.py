"""Layer normalisation over the channels of each pixel, as in ConvNeXt (Liu et al. 2022, arXiv:2201.03545)."""

import dataclasses
from typing import Any, Unpack, overload

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import requested
from normkernels._library import Kernel, kernel
from normkernels.ops import _rows
from normkernels.ops._channel_layouts import like_last
from normkernels.ops._layer_norm_recipe import BWD, FWD, ROWS, LayerNormRecipe, Settings
from normkernels.ops._rows import ImageOptions, Layout
from normkernels.ops._ways import call, function

# x, residual, y, summed, dy, dsummed, dx: contiguous (B, N, S), a pixel's N channels lie S apart; mean, rstd: (B, S)
layer_norm_2d_fwd: Kernel = kernel("layer_norm_2d_fwd" + FWD.format(""))
layer_norm_2d_bwd: Kernel = kernel("layer_norm_2d_bwd" + BWD.format("", ""))

STRIDED_ROWS = Layout(layer_norm_2d_fwd, layer_norm_2d_bwd, _rows.strided_rows, _rows.strided_rows)


def _pixel_rows(t: Tensor | None, n: int) -> Any:
    return None if t is None else _rows.rows(t.movedim(1, -1), n)


def _image(rows: Tensor, input: Tensor) -> Tensor:
    return rows.view(input.movedim(1, -1).shape).movedim(-1, 1)


def _dense(t: Tensor) -> Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


FORMATS = torch.preserve_format, torch.contiguous_format, torch.channels_last, torch.channels_last_3d
# the pixels are rows as they lie
CHANNELS_LAST = dataclasses.replace(
    ROWS, view=_pixel_rows, read=_pixel_rows, like=like_last, shaped=_image, dense=_dense
)


@overload
def layer_norm_2d(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
    residual: None = None, **options: Unpack[ImageOptions],
) -> Tensor: ...  # fmt: skip
@overload
def layer_norm_2d(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *, residual: Tensor,
    **options: Unpack[ImageOptions],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@function
def layer_norm_2d(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
    residual: Tensor | None = None, activation: Activation | None = None, slope: float = 0.01,
    weight_offset: float = 0.0, memory_format: torch.memory_format = torch.preserve_format, backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    r"""Layer normalisation of every pixel over its channels: :func:`layer_norm` along dim 1 of an image.

    Args:
        input: x, ``(B, C, H, W)`` (or any ``(B, C, *)``). channels_last goes through the row kernels; every other
            layout is normalised where it lies, without a transposed copy.
        weight: w, ``(C,)``, in input's dtype or float32; None means no scale.
        bias: b, ``(C,)``, in input's dtype or float32; None means 0.
        eps: added to the variance (units of x²).
        residual: input's shape and dtype; s = x + residual is normalised instead of x, and returned too.
        activation, slope, weight_offset, backend: as in :func:`layer_norm`.
        memory_format: the layout of y and of the gradients. ``torch.channels_last`` suits the 1x1 convolutions of a
            ConvNeXt block, and is what ``permute -> layer_norm -> permute`` returns; input in another layout is copied
            once, forward and backward.

    Returns:
        y, input's shape and dtype; with a residual ``(y, s)``.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong (the message says which, the rule and the value).
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, residual, weight, bias; twice differentiable (through the reference).
    Deterministic: yes. Differs from torch: torch has no such layer; it equals ``permute -> layer_norm -> permute``.

    Example:
        >>> x = torch.randn(2, 8, 5, 5)
        >>> y = nk.functional.layer_norm_2d(x, memory_format=torch.channels_last)
        >>> y.is_contiguous(memory_format=torch.channels_last)
        True

    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 3 and 4, with the C channels of one pixel as the units.
    """
    name = "layer_norm_2d"
    _checks.check_input(name, input)
    if input.dim() < 3:
        _checks.fail(name, "input", "have at least 3 dimensions (B, C, *)", f"shape {tuple(input.shape)}")
    _checks.check_like_input(name, "residual", residual, input)
    input, residual, weight, bias = _checks.prepared("layer_norm", input, residual, weight, bias)
    _checks.check_per_channel(name, input, weight=weight, bias=bias)
    _checks.check_eps(name, eps)
    activation = _checks.check_activation(name, activation)
    check_format(name, memory_format)
    backend = requested(backend, name, input)
    last = memory_format in FORMATS[2:]
    if memory_format == torch.preserve_format:
        last = input.movedim(1, -1).is_contiguous() and not input.is_contiguous()
    settings = Settings(CHANNELS_LAST if last else STRIDED_ROWS, 0, eps, weight_offset, activation, slope, backend)
    found: Any = call(LayerNormRecipe, input, residual, weight, bias, None, settings)
    return found[0] if residual is None else found


def check_format(name: str, memory_format: torch.memory_format) -> None:
    if memory_format not in FORMATS:
        _checks.fail(name, "memory_format", f"be one of {', '.join(map(str, FORMATS))}", memory_format)
