"""Weight norm: any dim, any layout, filters of zeros."""

import torch
from torch import Tensor

from normkernels.cases._filters import filter_op
from normkernels.functional import weight_norm


def weight_norm_torch(v: Tensor, g: Tensor, dim: int | None = 0) -> Tensor:
    """torch's own kernel, which wants g beside v."""
    shape = [] if dim is None else [g.numel() if d == dim else 1 for d in range(v.dim())]
    return torch._weight_norm(v, g.view(shape), -1 if dim is None else dim)  # type: ignore[reportPrivateImportUsage]


OP = filter_op("weight_norm", weight_norm, weight_norm_torch, "v", "g", required=True, dims=True)
