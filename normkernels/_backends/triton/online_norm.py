"""Online norm: two sweeps over x with a scan over samples between them (Chiley et al. 2019, arXiv:1905.05894)."""

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.online.backward import backward
from normkernels._backends.triton.online.forward import forward

online_norm_fwd = on_device(forward)
online_norm_bwd = on_device(backward)
