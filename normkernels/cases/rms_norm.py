"""RMS norm over trailing dims."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from normkernels.cases._rows import activate, row_op, scaled
from normkernels.functional import rms_norm


def rms_norm_torch(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None,
    residual: Tensor | None = None, activation: str | None = None, slope: float = 0.01, weight_offset: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    s = input if residual is None else input + residual
    y = F.rms_norm(s, normalized_shape, scaled(weight, weight_offset, s.dtype), eps)
    y = activate(y, activation, slope)
    return y if residual is None else (y, s)


OP = row_op("rms_norm", rms_norm, rms_norm_torch, ("residual", "weight"), eps=1e-6)
