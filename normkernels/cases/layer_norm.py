"""Layer norm over trailing dims."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from normkernels.cases._rows import completed, each_scaled, has_rows, row_op, scaled
from normkernels.functional import layer_norm


def layer_norm_torch(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, residual: Tensor | None = None, activation: str | None = None, slope: float = 0.01,
    weight_offset: float = 0.0, gate: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    s = input if residual is None else input + residual
    if has_rows(normalized_shape, weight, bias):
        y = F.layer_norm(s, normalized_shape, eps=eps)
        y = each_scaled(y, weight, bias, weight_offset, len(normalized_shape))
    else:
        y = F.layer_norm(s, normalized_shape, scaled(weight, weight_offset, s.dtype), scaled(bias, 0.0, s.dtype), eps)
    y = completed(y, gate, activation, slope)
    return y if residual is None else (y, s)


OP = row_op("layer_norm", layer_norm, layer_norm_torch, ("residual", "weight", "bias"), eps=1e-5)
