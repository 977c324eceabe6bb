"""What norms share that another library calls with a second tensor, which is not what ours take second."""

import torch
from torch import Tensor, nn


class Second(nn.Module):
    """Called by the names that its arguments had; calls that ours does not know go the way that they went before."""

    called: tuple[str, ...]
    weight: Tensor


def alike(input: Tensor, other: Tensor, weight: Tensor, dtypes: tuple[torch.dtype, ...]) -> bool:
    """As ours wants them: nothing is broadcast, the other tensor is of these dtypes, the weight may be in float32."""
    return input.shape == other.shape and other.dtype in dtypes and weight.dtype in beside(input.dtype)


def beside(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """What may stand beside input of this dtype and is not rounded: the same one, float32 beside 16 bits."""
    return (dtype, torch.float32) if dtype.itemsize == 2 else (dtype,)
