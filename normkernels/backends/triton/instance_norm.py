"""Instance norm: the channel kernels, one statistic for each plane (Ulyanov et al. 2016, arXiv:1607.08022)."""

from normkernels.backends.triton._channels_backward import backward
from normkernels.backends.triton._channels_forward import forward
from normkernels.backends.triton._rows import on_device


@on_device
def instance_norm_fwd(x, skip, weight, bias, y, mean, var, eps, activation, slope, channels_last):
    """y = act((x - mean) (var + eps)^(-1/2) w + b + skip)."""
    forward(x, skip, weight, bias, y, mean, var, eps, activation, slope, channels_last)


@on_device
def instance_norm_bwd(
    dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, eps, training, activation, slope, channels_last
):  # fmt: skip
    """dx = rstd (g - mean(g) - xhat mean(g xhat)), g = du w; dx = rstd g where mean and var are constants."""
    backward(
        dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, eps, training, activation, slope, channels_last
    )  # fmt: skip
