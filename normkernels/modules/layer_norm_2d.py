"""LayerNorm2d: layer norm over the channels of each pixel."""

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._extras import extra
from normkernels.modules._leaf import leaf
from normkernels.modules.layer_norm import LayerNorm
from normkernels.ops.layer_norm_2d import check_format, layer_norm_2d


class LayerNorm2d(LayerNorm):
    """Layer norm over C at each pixel of ``(B, C, H, W)``, contiguous or channels_last; see
    :func:`normkernels.functional.layer_norm_2d`. Takes C and the arguments of :class:`LayerNorm`, and
    ``memory_format``, the layout of the output: in place of a layer that permutes, ``torch.channels_last``.
    """

    memory_format: torch.memory_format = extra("memory_format")

    def __init__(
        self, normalized_shape: int, *args, memory_format: torch.memory_format = torch.preserve_format, **kwargs
    ) -> None:
        check_format(type(self).__name__, memory_format)
        super().__init__(normalized_shape, *args, **kwargs)
        self.memory_format = memory_format

    def forward(self, input: Tensor, residual: Tensor | None = None):
        if isinstance(input, Proxy):
            return leaf(self, input, residual)
        return layer_norm_2d(input, self.weight, self.bias, self.__dict__["eps"], residual=residual, **self.extras)
