"""RMS norm over trailing dims."""

import torch.nn.functional as F

from normkernels.cases import Op
from normkernels.cases._rows import activate, make_rows, row_samples, scaled
from normkernels.functional import rms_norm

OPTIONAL = ("residual", "weight")


def rms_norm_torch(
    input, normalized_shape, weight=None, eps=None, residual=None, activation=None, slope=0.01, weight_offset=0.0
):
    s = input if residual is None else input + residual
    y = F.rms_norm(s, normalized_shape, scaled(weight, weight_offset, s.dtype), eps)
    y = activate(y, activation, slope)
    return y if residual is None else (y, s)


OP = Op(
    stem="rms_norm",
    function=rms_norm,
    torch=rms_norm_torch,
    samples=row_samples("rms_norm", OPTIONAL, eps=1e-6),
    make=make_rows("rms_norm", OPTIONAL, eps=1e-6),
    parameters=("weight",),
)
