"""Layer norm: the row kernels, with a mean (Ba, Kiros & Hinton 2016, arXiv:1607.06450)."""

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.rows.backward import backward
from normkernels._backends.triton.rows.forward import forward


@on_device
def layer_norm_fwd(a):
    """y = act(u) or u act(gate), u = (s - mean) rstd (w + offset) + b, s = x + residual."""
    forward(a, a.bias, a.mean)


@on_device
def layer_norm_bwd(a):
    """dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsummed, g = du (w + offset)."""
    backward(a, a.bias, a.mean, a.dbias)
