"""The functions: ``normkernels.functional.layer_norm`` and its like."""

from normkernels.ops.batch_norm import batch_norm
from normkernels.ops.batch_norm_lstm import batch_norm_lstm
from normkernels.ops.batch_norm_rnn import batch_norm_rnn
from normkernels.ops.batch_renorm import batch_renorm
from normkernels.ops.group_norm import group_norm
from normkernels.ops.instance_norm import instance_norm
from normkernels.ops.layer_norm import layer_norm
from normkernels.ops.layer_norm_2d import layer_norm_2d
from normkernels.ops.layer_norm_gru import layer_norm_gru, layer_norm_gru_cell
from normkernels.ops.layer_norm_lstm import layer_norm_lstm, layer_norm_lstm_cell
from normkernels.ops.layer_norm_rnn import layer_norm_rnn, layer_norm_rnn_cell
from normkernels.ops.normprop import normprop_conv, normprop_linear
from normkernels.ops.online_norm import online_norm
from normkernels.ops.rms_norm import rms_norm
from normkernels.ops.streaming_norm import streaming_norm, streaming_norm_update
from normkernels.ops.weight_norm import weight_norm
from normkernels.ops.weight_standardization import weight_standardization

__all__ = [
    "batch_norm", "batch_norm_lstm", "batch_norm_rnn", "batch_renorm", "group_norm", "instance_norm", "layer_norm",
    "layer_norm_2d", "layer_norm_gru", "layer_norm_gru_cell", "layer_norm_lstm", "layer_norm_lstm_cell",
    "layer_norm_rnn", "layer_norm_rnn_cell", "normprop_conv", "normprop_linear", "online_norm", "rms_norm",
    "streaming_norm", "streaming_norm_update", "weight_norm", "weight_standardization",
]  # fmt: skip
