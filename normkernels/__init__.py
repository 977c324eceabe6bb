"""normkernels: fused forward and backward normalisation kernels for PyTorch."""

from normkernels import functional, parametrizations
from normkernels._activations import ACTIVATIONS
from normkernels._backends import backends, use_backend
from normkernels._version import __version__
from normkernels.canonical import canonical_error_bound, coherence
from normkernels.conversion import convert, revert
from normkernels.data_norm import DataNorm
from normkernels.distributed import (
    SyncBatchNorm,
    SyncBatchRenorm,
    SyncOnlineNorm,
    SyncStreamingNorm,
    synchronize_,
)
from normkernels.fold import fold_
from normkernels.hub import kernel_mapping
from normkernels.modules.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normkernels.modules.batch_norm_lstm import BatchNormLSTM
from normkernels.modules.batch_norm_rnn import BatchNormRNN
from normkernels.modules.batch_renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from normkernels.modules.group_norm import GroupNorm
from normkernels.modules.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normkernels.modules.layer_norm import LayerNorm
from normkernels.modules.layer_norm_2d import LayerNorm2d
from normkernels.modules.layer_norm_gru import LayerNormGRU, LayerNormGRUCell
from normkernels.modules.layer_norm_lstm import LayerNormLSTM, LayerNormLSTMCell
from normkernels.modules.layer_norm_rnn import LayerNormRNN, LayerNormRNNCell
from normkernels.modules.normprop import (
    NormPropConv1d,
    NormPropConv2d,
    NormPropConv3d,
    NormPropLinear,
    project_unit_norm_,
)
from normkernels.modules.online_norm import OnlineNorm1d, OnlineNorm2d, OnlineNorm3d
from normkernels.modules.rms_norm import RMSNorm
from normkernels.modules.streaming_norm import StreamingNorm1d, StreamingNorm2d, StreamingNorm3d
from normkernels.modules.weight_norm import init_weight_norm_
from normkernels.moments import activation_moments
from normkernels.update_bn import update_bn

__all__ = [
    "ACTIVATIONS", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "BatchNormLSTM", "BatchNormRNN", "BatchRenorm1d",
    "BatchRenorm2d", "BatchRenorm3d", "DataNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LayerNorm", "LayerNorm2d", "LayerNormGRU", "LayerNormGRUCell", "LayerNormLSTM", "LayerNormLSTMCell",
    "LayerNormRNN", "LayerNormRNNCell", "NormPropConv1d", "NormPropConv2d", "NormPropConv3d", "NormPropLinear",
    "OnlineNorm1d", "OnlineNorm2d", "OnlineNorm3d", "RMSNorm", "StreamingNorm1d", "StreamingNorm2d", "StreamingNorm3d",
    "SyncBatchNorm", "SyncBatchRenorm", "SyncOnlineNorm", "SyncStreamingNorm",
    "__version__", "activation_moments", "backends", "canonical_error_bound",
    "coherence", "convert", "fold_", "functional", "init_weight_norm_", "kernel_mapping", "parametrizations",
    "project_unit_norm_", "revert", "synchronize_", "update_bn", "use_backend",
]  # fmt: skip
