"""Batch norm: the channel kernels, one statistic for each channel (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

from normkernels.backends.triton.base.launch import on_device
from normkernels.backends.triton.channels.backward import backward, dx_from_means, sums
from normkernels.backends.triton.channels.forward import apply, forward, moments

batch_norm_fwd = on_device(forward)
batch_norm_bwd = on_device(backward)
batch_norm_apply = on_device(apply)
batch_norm_moments = on_device(moments)
batch_norm_sums = on_device(sums)
batch_norm_dx = on_device(dx_from_means)
