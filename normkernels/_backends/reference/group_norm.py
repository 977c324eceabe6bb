"""Group norm (Wu & He 2018, eq. 1 to 7): one statistic for each group of channels of each image, (N, G)."""

from normkernels._backends.reference._channels import channels_bwd as group_norm_bwd
from normkernels._backends.reference._channels import channels_fwd as group_norm_fwd

__all__ = ["group_norm_bwd", "group_norm_fwd"]
