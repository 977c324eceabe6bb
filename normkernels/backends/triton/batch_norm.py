"""Batch norm: the channel kernels, one statistic for each channel (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

from normkernels.backends.triton._channels_backward import backward, dx_from_means, sums
from normkernels.backends.triton._channels_forward import apply, forward, moments
from normkernels.backends.triton._rows import on_device


@on_device
def batch_norm_fwd(x, skip, weight, bias, y, mean, var, eps, activation, slope, channels_last):
    """y = act((x - mean) (var + eps)^(-1/2) w + b + skip)."""
    forward(x, skip, weight, bias, y, mean, var, eps, activation, slope, channels_last)


@on_device
def batch_norm_apply(x, skip, weight, bias, mean, var, y, eps, activation, slope, channels_last):
    """y as above, with mean and var given."""
    apply(x, skip, weight, bias, mean, var, y, eps, activation, slope, channels_last)


@on_device
def batch_norm_moments(x, mean, var, channels_last):
    """mean and biased var of each channel."""
    moments(x, mean, var, channels_last)


@on_device
def batch_norm_bwd(
    dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, eps, training, activation, slope, channels_last
):  # fmt: skip
    """dx = rstd (g - mean(g) - xhat mean(g xhat)), g = du w; dx = rstd g where mean and var are constants."""
    backward(
        dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, eps, training, activation, slope, channels_last
    )  # fmt: skip


@on_device
def batch_norm_sums(
    dy, x, skip, weight, bias, mean, var, sum_dy, sum_dy_xhat, eps, activation, slope, channels_last
):  # fmt: skip
    """Over each channel: the sum of du = dy act'(u), and of du xhat."""
    sums(dy, x, skip, weight, bias, mean, var, sum_dy, sum_dy_xhat, eps, activation, slope, channels_last)


@on_device
def batch_norm_dx(
    dy, x, skip, weight, bias, mean, var, mean_dy, mean_dy_xhat, dx, dskip, eps, activation, slope, channels_last
):  # fmt: skip
    """dx = rstd w (du - mean(du) - xhat mean(du xhat)), with those means given for each channel."""
    dx_from_means(
        dy, x, skip, weight, bias, mean, var, mean_dy, mean_dy_xhat, dx, dskip, eps, activation, slope, channels_last
    )  # fmt: skip
