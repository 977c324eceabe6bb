"""Streaming norm: statistics and their gradients from two memories (Liao et al. 2016, arXiv:1610.06160)."""

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.streaming.backward import backward
from normkernels._backends.triton.streaming.forward import forward

streaming_norm_fwd = on_device(forward)
streaming_norm_bwd = on_device(backward)
