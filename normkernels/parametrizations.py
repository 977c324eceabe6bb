"""Parametrizations of a module's weight, as in torch.nn.utils.parametrizations."""

from normkernels.modules.weight_norm import weight_norm
from normkernels.modules.weight_standardization import weight_standardization

__all__ = ["weight_norm", "weight_standardization"]
