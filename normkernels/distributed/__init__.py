"""Statistics that span processes, by torch.distributed."""

from normkernels.distributed.modules import SyncBatchNorm, SyncBatchRenorm
from normkernels.distributed.synchronize import synchronize_

__all__ = ["SyncBatchNorm", "SyncBatchRenorm", "synchronize_"]
