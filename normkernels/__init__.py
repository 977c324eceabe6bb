"""normkernels: fused forward and backward normalisation kernels for PyTorch."""

from normkernels import functional
from normkernels._version import __version__
from normkernels.backends import backends, use_backend
from normkernels.backends.reference._activations import NAMES as ACTIVATIONS
from normkernels.modules.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normkernels.modules.group_norm import GroupNorm
from normkernels.modules.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normkernels.modules.layer_norm import LayerNorm
from normkernels.modules.layer_norm_2d import LayerNorm2d
from normkernels.modules.rms_norm import RMSNorm

__all__ = [
    "ACTIVATIONS", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "LayerNorm2d", "RMSNorm", "__version__", "backends", "functional", "use_backend",
]  # fmt: skip
