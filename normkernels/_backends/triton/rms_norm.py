"""RMS norm: the row kernels, without a mean (Zhang & Sennrich 2019, arXiv:1910.07467)."""

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.rows.backward import backward
from normkernels._backends.triton.rows.forward import forward


@on_device
def rms_norm_fwd(a):
    """y = act(u) or u act(gate), u = s rstd (w + offset) + b, s = x + residual."""
    forward(a, a.bias, mean=None)


@on_device
def rms_norm_bwd(a):
    """dx = rstd (g - xhat mean(g xhat)) + dsummed, g = du (w + offset)."""
    backward(a, a.bias, None, a.dbias)
