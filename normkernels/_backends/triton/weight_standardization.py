"""Weight standardisation: the filter kernels, with a mean (Qiao et al. 2019, arXiv:1903.10520)."""

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.filters.backward import backward
from normkernels._backends.triton.filters.forward import forward


@on_device
def weight_standardization_fwd(a):
    """y = gain (w - mean) rstd."""
    forward(a.w, a.gain, a.y, a.mean, a.rstd, a.eps)


@on_device
def weight_standardization_bwd(a):
    """dgain = sum(dy xhat), dw = gain rstd (dy - mean(dy) - xhat dgain / N)."""
    backward(a.dy, a.w, a.gain, a.mean, a.rstd, a.dw, a.dgain)
