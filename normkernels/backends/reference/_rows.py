"""What the row family shares in the reference: dtype, affine along dim 1, sums over the rest."""

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """Statistics and arithmetic are in float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def affine(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, offset: float) -> Tensor:
    """xhat * (weight + offset) + bias along dim 1."""
    shape = (-1,) + (1,) * (xhat.dim() - 2)
    if weight is not None:
        xhat = xhat * (weight.to(xhat.dtype).view(shape) + offset)
    return xhat if bias is None else xhat + bias.to(xhat.dtype).view(shape)


def store_input_grad(dx: Tensor, grad: Tensor, dsummed: Tensor | None) -> None:
    dx.copy_(grad if dsummed is None else grad + dsummed)


def store_parameter_grad(buffer: Tensor | None, grad: Tensor) -> None:
    """Sum ``grad`` over everything but dim 1 into ``buffer``, if it is wanted."""
    if buffer is not None:
        buffer.copy_(grad.sum([d for d in range(grad.dim()) if d != 1]))
