"""Where channels lie: the views that the ops of the family take, and buffers as an input lies."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from normkernels.ops._buffers import empty


def lies_last(t: Tensor) -> bool:
    """Whether the channels (dim 1) of t are adjacent in memory: (N, C), channels_last, or nearly so."""
    if prod(t.shape[2:]) == 1:
        return True
    return t.shape[1] > 1 and t.stride(1) == 1


def view(t: Tensor | None, last: bool, batch: bool) -> Any:
    """t (N, C, *) as the ops want it, without a copy where it lies so. A batch of pixels is one long image."""
    if t is None:
        return None
    N, C, S = t.shape[0], t.shape[1], prod(t.shape[2:])
    if not last:
        return t.contiguous().view(N, C, S)
    return t.movedim(1, -1).contiguous().view((1, N * S, C) if batch else (N, S, C))


def as_it_is(t: Tensor) -> bool:
    """Whether t is contiguous, which an empty tensor always is, in the order of its dims."""
    return t.is_contiguous() and t.numel() > 0


def like(input: Tensor, last: bool) -> Tensor:
    """An unfilled buffer of input's shape, dense in the layout ``last``. No view, which could not change in place."""
    if not last or as_it_is(input):
        return torch.empty_like(input, memory_format=torch.contiguous_format)
    return like_last(input)


def like_last(input: Tensor) -> Tensor:
    """An unfilled buffer of input's shape with adjacent channels."""
    channels, strides = input.shape[1], [1]
    for size in reversed(input.shape[2:]):
        strides.insert(0, channels)
        channels = channels * size
    return input.new_empty_strided(input.shape, (channels, 1, *strides[:-1]))


def lying(planes: Tensor, input: Tensor) -> Tensor:
    """planes (N, C, S) in the shape of input (N, C, *), and in its layout."""
    y = planes.reshape(input.shape)
    if not lies_last(input) or as_it_is(input):
        return y
    return y.movedim(1, -1).contiguous().movedim(-1, 1)


def buffers(input, skip, weight, bias, wanted) -> list[Tensor | None]:
    """For the gradients of these; that of skip only where skip was kept."""
    last = lies_last(input)
    dskip = like(input, last) if skip is not None and wanted[1] else None
    return [like(input, last), dskip, empty(weight, wanted[2]), empty(bias, wanted[3])]
