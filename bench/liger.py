"""Liger's kernels, where liger_kernel is installed, called as the table of cases calls ours."""

import importlib.util


def _layer_norm(input, normalized_shape, weight, bias, eps, activation):
    from liger_kernel.transformers.functional import liger_layer_norm

    return liger_layer_norm(input, weight, bias, eps)


def _rms_norm(input, normalized_shape, weight, eps, activation):
    from liger_kernel.transformers.functional import liger_rms_norm

    return liger_rms_norm(input, weight, eps, in_place=False)  # in place it writes dx over dy, which is used again


def _rms_norm_residual(input, normalized_shape, residual, weight, eps, activation):
    from liger_kernel.transformers.functional import liger_fused_add_rms_norm

    return liger_fused_add_rms_norm(input, residual, weight, eps, in_place=False)


def missing(**arguments):
    raise NotImplementedError("liger has no such op")


INSTALLED = importlib.util.find_spec("liger_kernel") is not None
FUNCTIONS = {"layer_norm": _layer_norm, "rms_norm": _rms_norm, "rms_norm+residual": _rms_norm_residual}
