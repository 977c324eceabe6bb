"""LayerNorm2d: layer norm over the channels of each pixel."""

from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._leaf import leaf
from normkernels.modules.layer_norm import LayerNorm
from normkernels.ops.layer_norm_2d import layer_norm_2d


class LayerNorm2d(LayerNorm):
    """Layer norm over C at each pixel of ``(B, C, H, W)``, contiguous or channels_last; see
    :func:`normkernels.functional.layer_norm_2d`. Takes C and the arguments of :class:`LayerNorm`.
    """

    def forward(self, input: Tensor, residual: Tensor | None = None):
        if isinstance(input, Proxy):
            return leaf(self, input, residual)
        return layer_norm_2d(input, self.weight, self.bias, self.__dict__["eps"], residual=residual, **self.extras())
