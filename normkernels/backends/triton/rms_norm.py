"""RMS norm: the row kernels, without a mean and a bias (Zhang & Sennrich 2019, arXiv:1910.07467)."""

from normkernels.backends.triton.base.launch import on_device
from normkernels.backends.triton.rows.backward import backward
from normkernels.backends.triton.rows.forward import forward


@on_device
def rms_norm_fwd(x, residual, weight, y, summed, rstd, eps, weight_offset, activation, slope):
    """y = act(s rstd (w + offset)), s = x + residual."""
    forward(x, residual, weight, None, y, summed, None, rstd, eps, weight_offset, activation, slope)


@on_device
def rms_norm_bwd(dy, dsummed, x, weight, rstd, dx, dweight, weight_offset, activation, slope):
    """dx = rstd (g - xhat mean(g xhat)) + dsummed, g = dy act'(u) (w + offset)."""
    backward(dy, dsummed, x, weight, None, None, rstd, dx, dweight, None, weight_offset, activation, slope)
