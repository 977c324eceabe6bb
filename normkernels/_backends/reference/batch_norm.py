"""Batch norm (Ioffe & Szegedy 2015, algorithm 1): one statistic for each channel of the whole batch, (1, C)."""

from normkernels._backends.reference._channels import channels_apply as batch_norm_apply
from normkernels._backends.reference._channels import channels_bwd as batch_norm_bwd
from normkernels._backends.reference._channels import channels_dx as batch_norm_dx
from normkernels._backends.reference._channels import channels_fwd as batch_norm_fwd
from normkernels._backends.reference._channels import channels_moments as batch_norm_moments
from normkernels._backends.reference._channels import channels_sums as batch_norm_sums

__all__ = [
    "batch_norm_apply", "batch_norm_bwd", "batch_norm_dx", "batch_norm_fwd", "batch_norm_moments", "batch_norm_sums",
]  # fmt: skip
