"""Statistics and states that span processes, by torch.distributed."""

from normkernels.distributed.sync_batch_norm import SyncBatchNorm, synchronize_
from normkernels.distributed.sync_batch_renorm import SyncBatchRenorm
from normkernels.distributed.sync_online_norm import SyncOnlineNorm
from normkernels.distributed.sync_streaming_norm import SyncStreamingNorm

__all__ = ["SyncBatchNorm", "SyncBatchRenorm", "SyncOnlineNorm", "SyncStreamingNorm", "synchronize_"]
