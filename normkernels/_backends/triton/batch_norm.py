"""Batch norm: the channel kernels, one statistic for each channel (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

from normkernels._backends.triton.base.launch import on_device
from normkernels._backends.triton.channels import sizes
from normkernels._backends.triton.channels.backward import spread, sums
from normkernels._backends.triton.channels.forward import apply, moments
from normkernels._backends.triton.channels.merged_backward import backward
from normkernels._backends.triton.channels.merged_forward import forward
from normkernels._backends.triton.channels.tensors import filled, tensors

batch_norm_fwd = on_device(forward)


@on_device
def batch_norm_bwd(a):
    """Without training mean and var are constants."""
    backward(a, a.training)


@on_device
def batch_norm_moments(a):
    """mean and var of x."""
    moments(a.x, a.mean, a.var, a.channels_last)


@on_device
def batch_norm_apply(a):
    """y, with mean and var given."""
    apply(filled(a), a)


@on_device
def batch_norm_sums(a):
    """The sums over each channel of du xhat and of du."""
    sums(tensors(a), a, a.sum_dy_xhat, a.sum_dy)


@on_device
def batch_norm_dx(a):
    """dx and dskip, with the means of du xhat and of du given for each channel."""
    t = tensors(a)._replace(mean_gx=a.mean_dy_xhat, mean_g=a.mean_dy, dx=a.dx, dskip=a.dskip)
    spread(t, a, sizes.of(a.x, a.mean, a.channels_last))
