"""Streaming norm: statistics and their gradients from two memories (Liao et al. 2016, arXiv:1610.06160)."""

from normkernels.backends.triton._rows import on_device
from normkernels.backends.triton._streaming_backward import backward
from normkernels.backends.triton._streaming_forward import forward

streaming_norm_fwd = on_device(forward)
streaming_norm_bwd = on_device(backward)
