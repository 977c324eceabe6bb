"""Statistics that span processes, by torch.distributed."""

from normkernels.distributed.modules import SyncBatchNorm, SyncBatchRenorm, synchronize_

__all__ = ["SyncBatchNorm", "SyncBatchRenorm", "synchronize_"]
