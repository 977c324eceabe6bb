"""What the recurrent family shares in the reference: the walk over time, groups of gates, the linear algebra of a norm.

Rows of a sequence: those of the first step, then those of the second, as in a packed sequence. Step t has the first
``batch_sizes[t]`` rows of a state; without batch_sizes it has all of them.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from normkernels._backends.reference._rows import compute_dtype


def steps(total: int, batch: int, batch_sizes: Tensor | None, reverse: bool) -> Iterator[tuple[int, slice, int]]:
    """(t, rows of the sequence, how many) in the order in which they are walked."""
    sizes = [int(batch)] * int(total // batch if batch else 1) if batch_sizes is None else batch_sizes.tolist()
    ends = list(itertools.accumulate(sizes))
    for t in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        yield t, slice(ends[t] - sizes[t], ends[t]), sizes[t]


def kept(rows: slice, buffer: Tensor, total: int) -> slice:
    """Where a step's rows lie in a buffer of all steps, or of one."""
    return rows if buffer.shape[0] == total else slice(0, rows.stop - rows.start)


def summed(a, rows: slice, n: int) -> tuple[slice, Tensor]:
    """Fill a step's rows of a, what is normalised; where they lie in it, and the input's term in the wide dtype."""
    own, p = kept(rows, a.a, len(a.input)), a.input[rows].to(a.mean.dtype)
    product = a.h[:n] @ a.weight_hh.T
    a.a[own] = product if a.separate else product + p
    return own, p


def of_sum(a) -> Tensor:
    """The gradient of what is normalised, which is dinput where the input's term is part of it."""
    return a.dinput if a.da is None else a.da


def unroll(input, batch_sizes, states, reverse: bool, step: Callable[..., tuple[Tensor, ...]]):
    """``step(t, p, *states) -> new states`` for every step t, of its rows alone: (y, *states), y from the first one."""
    ys = {}
    for t, rows, n in steps(len(input), len(states[0]), batch_sizes, reverse):
        new = step(t, input[rows], *(s[:n] for s in states))
        states = tuple(torch.cat([a, s[n:]]) if n < len(s) else a for a, s in zip(new, states, strict=True))
        ys[t] = new[0]
    return torch.cat([ys[t] for t in sorted(ys)]), *states


def widened(*tensors: Tensor | None) -> list:
    """All in the dtype of the arithmetic on the first."""
    dtype = compute_dtype(tensors[0])  # type: ignore[arg-type]
    return [None if t is None else t.to(dtype) for t in tensors]


def normalise(a: Tensor, dims, eps: float) -> Tensor:
    """(a - mean) / sqrt(var + eps), with mean and population variance over dims."""
    centred = a - a.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)


def of_groups(a: Tensor, groups: list[int]) -> list[Tensor]:
    """The columns of each group of adjacent gates: groups [2, 1] of three gates are two thirds and one third."""
    return list(a.split([a.shape[-1] // sum(groups) * gates for gates in groups], -1))


def normalise_groups(a: Tensor, groups: list[int], eps: float) -> Tensor:
    """Each group of gates normalised in each row."""
    return torch.cat([normalise(part, -1, eps) for part in of_groups(a, groups)], -1)


def affine(xhat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    xhat = xhat if weight is None else xhat * weight
    return xhat if bias is None else xhat + bias


def row_statistics(a: Tensor, groups: list[int], eps: float) -> tuple[Tensor, Tensor]:
    """mean and 1 / sqrt(var + eps) of each group of each row: (n, len(groups))."""
    found = [torch.var_mean(part, -1, correction=0) for part in of_groups(a, groups)]
    return torch.stack([mean for _, mean in found], -1), torch.stack([(var + eps).rsqrt() for var, _ in found], -1)


def spread(statistic: Tensor, groups: list[int], hidden: int) -> Tensor:
    """(n, len(groups)) -> (n, gates * hidden)."""
    return statistic.repeat_interleave(torch.tensor(groups, device=statistic.device) * hidden, -1)


def norm_backward(dq: Tensor, xhat: Tensor, rstd: Tensor, weight: Tensor | None, dims) -> Tensor:
    """da of q = xhat * weight, xhat = (a - mean) * rstd over dims; dims None: mean and rstd are constants."""
    g = dq if weight is None else dq * weight
    if dims is None:
        return rstd * g
    return rstd * (g - g.mean(dims, keepdim=True) - xhat * (g * xhat).mean(dims, keepdim=True))


def groups_backward(dq, xhat, rstd, weight, groups: list[int]) -> Tensor:
    """The same, group by group."""
    g = dq if weight is None else dq * weight
    parts = zip(of_groups(g, groups), of_groups(xhat, groups), of_groups(rstd, groups), strict=True)
    return torch.cat([norm_backward(g, h, r, None, -1) for g, h, r in parts], -1)


class ParameterGrad:
    """The sums over all steps that become dweight and dbias."""

    def __init__(self, weight: Tensor | None, bias: Tensor | None) -> None:
        self.buffers = weight, bias
        self.sums: list = [0.0, 0.0]

    def add(self, dq: Tensor, xhat: Tensor) -> None:
        self.sums[0] += (dq * xhat).sum(0)
        self.sums[1] += dq.sum(0)

    def store(self) -> None:
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            if buffer is not None:
                buffer.copy_(total)


def activate(z: Tensor, nonlinearity: str) -> Tensor:
    return torch.tanh(z) if nonlinearity == "tanh" else torch.relu(z)


def activation_backward(dy: Tensor, y: Tensor, nonlinearity: str) -> Tensor:
    """From the output alone."""
    return dy * (1 - y * y) if nonlinearity == "tanh" else torch.where(y > 0, dy, 0)


def lstm_gates(z: Tensor) -> list[Tensor]:
    """i, f, g, o of the four gates' sums."""
    i, f, g, o = z.chunk(4, -1)
    return [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()]


def lstm_gates_backward(dcell, do, i, f, g, o, previous):
    """(dz, dc before): from the gradients of f c + i g and of o."""
    di, df, dg = dcell * g, dcell * previous, dcell * i
    dz = torch.cat([di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)], -1)
    return dz, dcell * f


def lstm_step(a, own: slice, gates: list[Tensor], n: int) -> Tensor:
    """Keep the gates of a step; the cells that come from them."""
    i, f, g, _ = gates
    a.gates[own] = torch.cat(gates, -1).to(a.gates.dtype)
    return f * a.c[:n] + i * g


def lstm_hand_on(a, rows: slice, own: slice, n: int, cell: Tensor, normalised: Tensor, o: Tensor) -> None:
    """Keep the cells of a step and hand them on, the normalised ones where the raw ones are kept too; and h."""
    if a.raw_cells is not None:
        a.raw_cells[own], cell = cell, normalised
    a.c[:n] = a.cells[own] = cell
    a.h[:n] = a.y[rows] = (o * torch.tanh(normalised)).to(a.y.dtype)


def lstm_backward(a, rows: slice, n: int, cell_norm: tuple | None, cell_sums: ParameterGrad) -> Tensor:
    """dz of the gates' sums in a step; dc becomes that of the step before.

    cell_norm: xhat of the cells, rstd, weight, bias and the dims of the norm, None without one.
    """
    i, f, g, o = a.gates[rows].to(a.mean.dtype).chunk(4, -1)
    normalised = a.cells[rows]
    if cell_norm is not None:
        xhat, rstd, weight, bias, dims = cell_norm
        normalised = affine(xhat, weight, bias)
    dh = a.dy[rows].to(a.mean.dtype) + a.dh[:n]
    t = torch.tanh(normalised)
    dcell = dh * o * (1 - t * t) + (a.dc[:n] if cell_norm is None or a.raw_cells is not None else 0)
    if cell_norm is not None:
        cell_sums.add(dcell, xhat)
        dcell = norm_backward(dcell, xhat, rstd, weight, dims) + (a.dc[:n] if a.raw_cells is None else 0)
    dz, a.dc[:n] = lstm_gates_backward(dcell, dh * t, i, f, g, o, a.previous_cells[rows])
    return dz
