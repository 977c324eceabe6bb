"""Layer norm: the row kernels, with a mean (Ba, Kiros & Hinton 2016, arXiv:1607.06450)."""

from normkernels.backends.triton.base.launch import on_device
from normkernels.backends.triton.rows.backward import backward
from normkernels.backends.triton.rows.forward import forward


@on_device
def layer_norm_fwd(x, residual, weight, bias, y, summed, mean, rstd, eps, weight_offset, activation, slope):
    """y = act((s - mean) rstd (w + offset) + b), s = x + residual."""
    forward(x, residual, weight, bias, y, summed, mean, rstd, eps, weight_offset, activation, slope)


@on_device
def layer_norm_bwd(
    dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias, weight_offset, activation, slope
):  # fmt: skip
    """dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsummed, g = dy act'(u) (w + offset)."""
    backward(dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias, weight_offset, activation, slope)
