"""Layer norm over the channels of each pixel: the same formula on x of shape (B, N, S)."""

from normkernels._backends.reference.layer_norm import backward, forward
from normkernels._backends.reference.layer_norm import layer_norm_ref as layer_norm_2d_ref

__all__ = ["layer_norm_2d_bwd", "layer_norm_2d_fwd", "layer_norm_2d_ref"]


def layer_norm_2d_fwd(a):
    """y, summed, mean and rstd."""
    forward(a, None)


def layer_norm_2d_bwd(a):
    """dx, dweight and dbias."""
    backward(a, None, None)
