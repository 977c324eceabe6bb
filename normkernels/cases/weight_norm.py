"""Weight norm: any dim, any layout, filters of zeros."""

import torch

from normkernels.cases._filters import filter_op, others
from normkernels.functional import weight_norm


def weight_norm_torch(v, g, dim=0):
    squares = v.square().sum(others(v.dim(), dim), keepdim=True)
    length = g.view([1] * v.dim() if dim is None else [len(g) if d == dim else 1 for d in range(v.dim())])
    return v * length * torch.where(squares > 0, torch.where(squares > 0, squares, 1.0).rsqrt(), 0.0)


OP = filter_op("weight_norm", weight_norm, weight_norm_torch, "v", "g", required=True, dims=True)
