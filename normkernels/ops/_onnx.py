"""The same outputs by functions of torch.nn.functional for which torch's ONNX exporter has an operator of the standard.

In the dtype of statistics: what an operator is given has one dtype, and the result is rounded once.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from normkernels._activations import activation as act
from normkernels._activations import of_gate
from normkernels.ops._buffers import statistic_dtype


def rows(
    norm: Callable[..., Tensor], input: Tensor, residual: Tensor | None, weight, bias, gate, settings
) -> tuple[Tensor, ...]:
    """(y,), or (y, summed) with a residual; ``norm``: torch's layer_norm or one that is called like it."""
    s = input if residual is None else input + residual
    x = s.to(statistic_dtype(s))
    last = x if settings.dims else x.movedim(1, -1)
    weight, bias = (None if t is None else t.to(x.dtype) for t in (weight, bias))
    if weight is not None and settings.weight_offset:
        weight = weight + settings.weight_offset
    shape = last.shape[last.dim() - (settings.dims or 1) :]
    each = any(t is not None and t.dim() > len(shape) for t in (weight, bias))  # which no operator takes
    own = [None, None] if each else [weight, bias]
    u = norm(last, shape, *own, eps=settings.eps)
    if each:
        w, b = (None if t is None else t.view(len(t), *[1] * (x.dim() - t.dim()), *shape) for t in (weight, bias))
        u = u if w is None else u * w
        u = u if b is None else u + b
    u = u if settings.dims else u.movedim(-1, 1)
    opened = act(settings.activation, u if gate is None else gate.to(x.dtype), settings.slope)
    y = (opened if gate is None else u * opened).to(input.dtype)
    return (y,) if residual is None else (y, s)


def rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    """torch's, which takes no bias, and one."""
    u = F.rms_norm(x, shape, weight, eps)
    return u if bias is None else u + bias


def channels(input: Tensor, skip: Tensor | None, weight, bias, mean, var, settings) -> Tensor:
    """y, of given statistics or of those of each image."""
    x = input.to(statistic_dtype(input))
    weight, bias, mean, var = (None if t is None else t.to(x.dtype).flatten() for t in (weight, bias, mean, var))
    if mean is not None:
        u = F.batch_norm(x, mean, var, weight, bias, eps=settings.eps)
    elif settings.groups == x.shape[1]:
        u = F.instance_norm(x, weight=weight, bias=bias, eps=settings.eps)
    else:
        u = F.group_norm(x, settings.groups, weight, bias, settings.eps)
    gated, name = of_gate(settings.activation)
    if gated and skip is not None:
        return (u * act(name, skip.to(u.dtype), settings.slope)).to(input.dtype)
    return act(name, u if skip is None else u + skip, settings.slope).to(input.dtype)
