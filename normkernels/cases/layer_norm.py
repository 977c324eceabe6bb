"""Layer norm over trailing dims."""

import torch.nn.functional as F

from normkernels.cases import Op
from normkernels.cases._rows import activate, make_rows, row_samples, scaled
from normkernels.functional import layer_norm

OPTIONAL = ("residual", "weight", "bias")


def layer_norm_torch(
    input,
    normalized_shape,
    weight=None,
    bias=None,
    eps=1e-5,
    residual=None,
    activation=None,
    slope=0.01,
    weight_offset=0.0,
):
    s = input if residual is None else input + residual
    y = F.layer_norm(s, normalized_shape, scaled(weight, weight_offset, s.dtype), scaled(bias, 0.0, s.dtype), eps)
    y = activate(y, activation, slope)
    return y if residual is None else (y, s)


OP = Op(
    stem="layer_norm",
    function=layer_norm,
    torch=layer_norm_torch,
    samples=row_samples("layer_norm", OPTIONAL, eps=1e-5),
    make=make_rows("layer_norm", OPTIONAL, eps=1e-5),
)
