"""Weight standardisation: the filter kernels, with a mean (Qiao et al. 2019, arXiv:1903.10520)."""

from normkernels.backends.triton.base.launch import on_device
from normkernels.backends.triton.filters.backward import backward
from normkernels.backends.triton.filters.forward import forward

weight_standardization_fwd = on_device(forward)
weight_standardization_bwd = on_device(backward)
