"""Layer norm over the channels of each pixel: the same formula on x of shape (B, N, S)."""

from normkernels._backends.reference.layer_norm import layer_norm_bwd as layer_norm_2d_bwd
from normkernels._backends.reference.layer_norm import layer_norm_fwd as layer_norm_2d_fwd
from normkernels._backends.reference.layer_norm import layer_norm_ref as layer_norm_2d_ref

__all__ = ["layer_norm_2d_bwd", "layer_norm_2d_fwd", "layer_norm_2d_ref"]
