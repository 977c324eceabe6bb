"""Instance norm (Ulyanov, Vedaldi & Lempitsky 2016): one statistic for each channel of each image, (N, C)."""

from normkernels._backends.reference._channels import channels_bwd as instance_norm_bwd
from normkernels._backends.reference._channels import channels_fwd as instance_norm_fwd

__all__ = ["instance_norm_bwd", "instance_norm_fwd"]
