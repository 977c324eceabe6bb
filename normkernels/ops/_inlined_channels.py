"""Norms of channels by statistics of their input in ordinary ops, written so that Inductor makes fast code of them.

Of torch's functions it makes Welford's loop, which divides for every few values, and keeps a mask of each activation,
which is slow to write. Here nothing is kept that our op does not keep: what is needed of u is computed again.
Each element is computed in the shape of the input: a view between it and a convolution gives the other layout to it.
"""

from typing import Any

import torch
from torch import Tensor

from normkernels._activations import activation as act
from normkernels._activations import derivative, of_gate
from normkernels._backends.reference._channels import affine, channels_ref, completed, pooled
from normkernels.ops._buffers import differentiable_backward, planes, statistic_dtype
from normkernels.ops._inlined import part
from normkernels.ops._ways import differentiated_again

OVER = (1, 3, 4)  # the dims of what is pooled that one statistic is taken over


class InlinedChannels(torch.autograd.Function):
    """(x, skip, weight, bias) -> (y, mean, var), as the ops of the family; x, skip and y (N, C, *).

    No output is a view, which the function's own autograd would not let others change in place.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, skip, weight, bias, settings) -> tuple[Tensor, Tensor, Tensor]:
        x, shape = _read(input, settings)
        first, rest, var = _moments(pooled(planes(x), shape))
        rstd = (var + settings.eps).rsqrt()
        tables = [_stored(_of_channels(t, x)) for t in (first, rstd, -rest * rstd)]
        w, b = (_of_images(t, x) for t in (weight, bias))
        y = completed(_normalised(x, *tables), w, b, skip, settings.activation, settings.slope)
        mean, var = (first + rest).reshape(shape), var.reshape(shape)
        kept = None if settings.activation == "identity" else skip
        ctx.save_for_backward(input, kept, weight, bias, *tables)
        ctx.settings = settings
        ctx.mark_non_differentiable(mean, var)
        return y.to(input.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        input, skip, weight, bias, first, rstd, moved = ctx.saved_tensors
        if differentiated_again():
            return *_again(dy, input, skip, weight, bias, ctx.settings), None
        x, shape = _read(input, ctx.settings)
        xhat = _normalised(x, first, rstd, moved)
        w, b = (_of_images(t, x) for t in (weight, bias))
        du, dskip = _opened(xhat, dy.to(x.dtype), w, b, skip, ctx.settings)
        sums = [t.sum(tuple(range(2, x.dim()))) for t in (du, du * xhat)]  # of each channel of each image
        share, scale = _share(pooled(planes(x), shape)), affine(rstd, w, None, None)
        weighed = (affine(planes(s), weight, None, None) for s in sums)
        means = (pooled(t, shape).sum(OVER, keepdim=True) * share for t in weighed)
        scale, c1, c2 = (_stored(t) for t in (scale, *(_of_channels(m, x) * rstd for m in means)))
        dx = du * scale - c1 - xhat * c2
        dweight, dbias = (_summed(s, t) for s, t in zip(reversed(sums), (weight, bias), strict=True))
        dskip = dskip.to(input.dtype) if ctx.needs_input_grad[1] else None
        return dx.to(input.dtype), dskip, dweight, dbias, None


def _read(input: Tensor, settings) -> tuple[Tensor, tuple[int, int]]:
    """x (N, C, *) in the dtype of statistics, and the shape (B, G) of these."""
    x = input.to(statistic_dtype(input))
    return x, (1 if settings.batch else x.shape[0], settings.groups)


def _moments(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean of a part, what it leaves of the mean, var) of what is pooled: float32 would round the sum of these two.

    A variance that rounding leaves below 0 is 0.
    """
    few, share = z[..., : part(z.shape[4])], _share(z)
    first = few.sum(OVER, keepdim=True) * _share(few)
    near = z - first
    rest = near.sum(OVER, keepdim=True) * share
    return first, rest, ((near * near).sum(OVER, keepdim=True) * share - rest * rest).clamp_min(0)


def _share(z: Tensor) -> float:
    """Of one element in a statistic; Inductor would divide for every few values."""
    return 1 / max(z.shape[1] * z.shape[3] * z.shape[4], 1)


def _of_channels(statistic: Tensor, x: Tensor) -> Tensor:
    """(B, 1, G, 1, 1) as (B, C, 1, ...), a 1 for each further dim of x."""
    B, C = statistic.shape[0], x.shape[1]
    each = statistic.expand(B, 1, statistic.shape[2], C // statistic.shape[2], 1)
    return each.reshape(B, C, *[1] * (x.dim() - 2))


def _of_images(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    """One of channels as what is written for (N, C, S) takes it where x has more dims."""
    return None if parameter is None else parameter.reshape(*parameter.shape, *[1] * (x.dim() - 3))


def _stored(t: Tensor) -> Tensor:
    """t, which Inductor then stores, for it would compute a root and a quotient anew for every few values."""
    return t.as_strided(t.shape, t.stride())


def _normalised(x: Tensor, first: Tensor, rstd: Tensor, moved: Tensor) -> Tensor:
    return (x - first) * rstd + moved


def _opened(xhat: Tensor, dy: Tensor, weight, bias, skip, settings) -> tuple[Tensor, Tensor]:
    """The gradients of u, and of what is added to it or of the gate."""
    gated, name = of_gate(settings.activation)
    if not gated:
        if name == "identity":
            return dy, dy
        du = dy * derivative(name, affine(xhat, weight, bias, skip), settings.slope)
        return du, du
    u, gate = affine(xhat, weight, bias, None), skip.to(dy.dtype)
    return dy * act(name, gate, settings.slope), dy * u * derivative(name, gate, settings.slope)


def _summed(sums: Tensor, parameter: Tensor | None) -> Tensor | None:
    """The gradient of a parameter, (C,) or (N, C), from sums over each channel of each image."""
    if parameter is None:
        return None
    return (sums if parameter.dim() == 2 else sums.sum(0)).to(parameter.dtype)


def _again(dy: Tensor, input: Tensor, skip, weight, bias, settings) -> list[Tensor | None]:
    """Gradients that can be differentiated again."""

    def composed(input: Tensor, skip, weight, bias) -> tuple[Tensor]:
        x, shape = _read(input, settings)
        numbers = settings.eps, settings.activation, settings.slope
        y = channels_ref(planes(x), planes(skip), weight, bias, None, None, shape, *numbers)
        return (y.to(input.dtype).reshape(x.shape),)

    return differentiable_backward(composed, (input, skip, weight, bias), (dy,))
