"""Products with all rows of a sequence at once, by the faster of the two libraries that torch has for them.

In float32 torch multiplies matrices with MKL, which does not use the wide registers of every maker's CPUs, and
convolves with oneDNN, which does: twice as fast on an AMD EPYC (docs/measured.md). A linear layer is a convolution with
kernels of one pixel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_ROWS = 1024  # fewer do not surely pay for the layout that oneDNN multiplies in
IMAGES = range(16, 65)  # torch sends smaller batches with such kernels elsewhere


def _images(rows: int, of: Tensor) -> int:
    """Into how many images the rows are cut for a convolution; 0 where a product of matrices is as good."""
    if of.device.type != "cpu" or of.dtype != torch.float32 or torch.compiler.is_compiling() or rows < FEW_ROWS:
        return 0
    return next((images for images in IMAGES if rows % images == 0), 0)


def _pixels(rows: Tensor, images: int) -> Tensor:
    """(rows, channels) as (images, channels, height, 1) that lie in channels_last."""
    return rows.contiguous().view(images, -1, 1, rows.shape[-1]).permute(0, 3, 1, 2)


def linear(input: Tensor, weight: Tensor) -> Tensor:
    """input weight^T, as F.linear."""
    rows = input.reshape(-1, input.shape[-1])
    images = _images(rows.shape[0], input)
    if not images:
        return F.linear(input, weight)
    y = F.conv2d(_pixels(rows, images), weight[:, :, None, None])
    return y.permute(0, 2, 3, 1).reshape(*input.shape[:-1], -1)


def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """Of the weight (N, K) in y = x weight^T, from dy (rows, N) and x (rows, K)."""
    images = _images(dy.shape[0], dy)
    if not images:
        return dy.t() @ x
    weight = x.new_empty(dy.shape[1], x.shape[1], 1, 1)
    settings = [0], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
    found = torch.ops.aten.convolution_backward(_pixels(dy, images), _pixels(x, images), weight, *settings)
    return found[1][:, :, 0, 0]
