"""The functions: ``normkernels.functional.layer_norm`` and its like."""

from normkernels.ops.batch_norm import batch_norm
from normkernels.ops.group_norm import group_norm
from normkernels.ops.instance_norm import instance_norm
from normkernels.ops.layer_norm import layer_norm
from normkernels.ops.layer_norm_2d import layer_norm_2d
from normkernels.ops.rms_norm import rms_norm

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "layer_norm_2d", "rms_norm"]
