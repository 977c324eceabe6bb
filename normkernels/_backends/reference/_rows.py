"""What the row family shares in the reference: dtype, centring, scale, affine along dim 1, sums over the rest."""

import math
from typing import Any

import torch
from torch import Tensor

from normkernels._activations import activation as act
from normkernels._activations import derivative


def compute_dtype(x: Tensor) -> torch.dtype:
    """Statistics and arithmetic are in float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def mean_of(z: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """The mean, ``dims`` kept. That of a DTensor is added up here: else what it is subtracted from stays in parts."""
    if not hasattr(z, "placements"):
        return z.mean(dims, keepdim=True)
    total = added_up(z.sum(dims, keepdim=True))
    return total / (z.numel() / max(total.numel(), 1))


def added_up(total: Any) -> Tensor:
    """A sum; one of a DTensor no longer in parts."""
    if not hasattr(total, "placements"):
        return total
    from torch.distributed.tensor import Replicate  # where there is a DTensor, it is loaded

    return total.redistribute(placements=[Replicate() if p.is_partial() else p for p in total.placements])


def centred(z: Tensor, dims: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """z less its mean over ``dims``, and that mean: in two steps, for the first mean is rounded."""
    mean = mean_of(z, dims)
    z = z - mean
    rest = mean_of(z, dims)
    return z - rest, mean + rest


def power_of_two(z: Tensor, dims: int | tuple[int, ...], least: float = 0.0) -> Tensor:
    """What brings the largest magnitude over ``dims``, or ``least``, near 1: then no square overflows or vanishes."""
    if z.numel() == 0:  # an empty batch has no largest magnitude
        return z.new_ones(())
    peak = z.detach().abs().amax(dims, keepdim=True).clamp(min=least)
    reach = math.log2(torch.finfo(z.dtype).max) - 2
    return 2.0 ** -torch.log2(peak).floor().clamp(-reach, reach)


def inverse_root(z: Tensor, dims: int | tuple[int, ...], eps: float) -> Tensor:
    """(mean(z^2) + eps)^(-1/2) over ``dims``, whatever the magnitude of z."""
    scale = power_of_two(z, dims, math.sqrt(max(eps, 0.0)))
    return torch.rsqrt((z * scale).square().mean(dims, keepdim=True) + eps * scale * scale) * scale


def affine(xhat: Tensor, weight: Tensor | None, bias: Tensor | None, offset: float) -> Tensor:
    """xhat * (weight + offset) + bias along dim 1."""
    if weight is not None:
        xhat = xhat * (_along(weight, xhat) + offset)
    return xhat if bias is None else xhat + _along(bias, xhat)


def _along(parameter: Tensor, x: Tensor) -> Tensor:
    """(N,) for all rows of x, or the row of (B, N) that each of them has; in x's dtype."""
    parameter = parameter.to(x.dtype)
    if parameter.dim() == 1:
        return parameter.view((-1,) + (1,) * (x.dim() - 2))
    samples, n = parameter.shape
    return parameter.unsqueeze(1).expand(samples, x.shape[0] // max(samples, 1), n).reshape(x.shape)


def as_rows(a: Any, shape: torch.Size) -> Any:
    """An op's arguments, those that are read row by row as the (M, N) that is written."""
    names = ("x", "residual", "gate", "dy", "dsummed")
    given = {name: getattr(a, name, None) for name in names}
    return a._replace(**{name: t.reshape(shape) for name, t in given.items() if t is not None})


def completed(u: Tensor, gate: Tensor | None, activation: str, slope: float) -> Tensor:
    """act(u), or u act(gate)."""
    return act(activation, u, slope) if gate is None else u * act(activation, gate.to(u.dtype), slope)


def through(dy: Tensor, u: Tensor, gate: Tensor | None, dgate: Tensor | None, a: Any) -> Tensor:
    """du, and into ``dgate``, if it is wanted, the gradient of the gate."""
    dy = dy.to(u.dtype)
    if gate is None:
        return dy * derivative(a.activation, u, a.slope)
    gate = gate.to(u.dtype)
    if dgate is not None:
        dgate.copy_(dy * u * derivative(a.activation, gate, a.slope))
    return dy * act(a.activation, gate, a.slope)


def store_input_grad(dx: Tensor, grad: Tensor, dsummed: Tensor | None) -> None:
    dx.copy_(grad if dsummed is None else grad + dsummed)


def store_parameter_grad(buffer: Tensor | None, grad: Tensor) -> None:
    """Sum ``grad`` over everything but dim 1 into ``buffer``, of each sample into its row, if it is wanted."""
    if buffer is not None and buffer.dim() == 2:
        buffer.copy_(grad.view(len(buffer), -1, grad.shape[1]).sum(1))
    elif buffer is not None:
        buffer.copy_(grad.sum([d for d in range(grad.dim()) if d != 1]))
