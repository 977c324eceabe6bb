"""The functions: ``normkernels.functional.layer_norm`` and its like."""

from normkernels.ops.layer_norm import layer_norm
from normkernels.ops.layer_norm_2d import layer_norm_2d
from normkernels.ops.rms_norm import rms_norm

__all__ = ["layer_norm", "layer_norm_2d", "rms_norm"]
