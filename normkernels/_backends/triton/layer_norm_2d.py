"""Layer norm over the channels of each pixel: x is (B, N, S), a pixel's N channels lie S apart (arXiv:2201.03545)."""

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.strided_rows.backward import backward
from normkernels._backends.triton.strided_rows.forward import forward

layer_norm_2d_fwd = on_device(forward)
layer_norm_2d_bwd = on_device(backward)
