"""What the samples of the channel family share: shapes, layouts, and every subset of the optional tensors."""

from collections.abc import Callable, Sequence
from itertools import combinations
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels._activations import ACTIVATIONS
from normkernels.cases import Op, Sample, adversarial, seeded
from normkernels.cases._rows import completed

OPTIONAL = ("skip", "weight", "bias")
RUNNING = ("running_mean", "running_var")
# odd planes; many tiny ones; one and three dims of space; one channel; one image
SHAPES = [
    (2, 3, 5, 7), (3, 33, 7, 7), (2, 64, 4, 4), (2, 300, 3, 3), (3, 31, 40), (2, 8, 3, 4, 5), (2, 1, 4, 4), (1, 5, 6, 6)
]  # fmt: skip


def last(x: Tensor) -> Tensor:
    """x with its channels adjacent in memory: channels_last, and the same for any rank."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel; 0 and 1 of nothing."""
    values = x.movedim(1, 0).flatten(1)
    if values.shape[1] == 0:
        return x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    return values.mean(1), values.var(1, correction=0)


def constants_torch(input, mean, std, weight=None, bias=None, **after) -> Tensor:
    """A norm whose statistics are constants, as a user of torch writes it."""
    y = F.batch_norm(input, mean, std.square(), weight, bias, False, 0.0, 0.0)
    return skip_and_activate(y, **after)


def affine(xhat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """xhat (N, C, S) times weight and with bias, if there are any."""
    xhat = xhat if weight is None else xhat * weight[:, None]
    return xhat if bias is None else xhat + bias[:, None]


def skip_and_activate(
    y: Tensor, skip: Tensor | None = None, activation: str | None = None, slope: float = 0.01,
    gate: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """What follows the norm, as a user of torch writes it."""
    return completed(y if skip is None else y + skip, gate, activation, slope)


class Norm(NamedTuple):
    """What the norms of the family differ in."""

    stem: str
    statistics: Callable[[int], tuple[int, ...]]  # the dims that one is taken over in an input of that rank
    arguments: Callable[[int], dict[str, Any]]  # of the call, for that many channels
    # a state for an input of that mean and variance (C,), as far off as draw(*shape) is from 0; zeros: the first one
    state: Callable[[Tensor, Tensor, Callable[..., Tensor]], dict[str, Tensor]] | None = None

    def x(self, *shape: int, groups: int | None = None) -> Tensor:
        """Each statistic's elements are of one kind; with ``groups`` one pools shape[1] / groups channels."""
        g = seeded(f"{self.stem}-{shape}")
        if groups is None:
            return adversarial(g, shape, self.statistics(len(shape)))
        return adversarial(g, (shape[0], groups, prod(shape[1:]) // groups), (2,)).view(shape)

    def sample(
        self, id: str, x: Tensor, present: Sequence[str] = OPTIONAL[1:], skip: Tensor | None = None,
        running: bool = False, big: bool = False, gated: bool = False, **call: Any,
    ) -> Sample:  # fmt: skip
        """``present`` names the optional tensors; ``skip`` is a certain one; ``running``: with running statistics."""
        g = seeded(f"{self.stem}-{id}-parameters")
        sizes = {"skip": x.shape} | dict.fromkeys(OPTIONAL[1:], x.shape[1:2])
        tensors = {k: torch.randn(sizes[k], generator=g, dtype=x.dtype) if k in present else None for k in OPTIONAL}
        if skip is not None:
            tensors["skip"] = skip
        call = self.arguments(x.shape[1]) | call
        if running:
            tensors["running_mean"] = torch.randn(x.shape[1], generator=g, dtype=x.dtype)
            tensors["running_var"] = torch.rand(x.shape[1], generator=g, dtype=x.dtype) + 0.5
            call = {k: v for k, v in call.items() if k not in RUNNING}
        if self.state is not None:
            tensors |= self.state(*moments(x), lambda *shape: torch.randn(shape, generator=g, dtype=x.dtype))
        if gated:
            tensors["gate"] = last(torch.randn(x.shape, generator=g, dtype=x.dtype))
        dy = torch.randn(x.shape, generator=g, dtype=x.dtype)
        return Sample(id, {"eps": 1e-5} | call, {"input": x} | tensors, (dy,), self.statistics(x.dim()), big)

    def samples(self) -> list[Sample]:
        """Those that every norm of the family has."""
        sample, x = self.sample, self.x
        subsets = [s for n in range(len(OPTIONAL) + 1) for s in combinations(OPTIONAL, n)]
        a, b, small = x(2, 20, 5, 7), x(2, 20, 5, 7).flip(0), x(2, 6, 2, 5)
        far = 1e4 + 1e-2 * torch.randn(2, 24, 3, 3, generator=seeded(self.stem), dtype=torch.float64)
        constant = torch.tensor([0.0, 1.0, -3.7, 1e4], dtype=torch.float64).view(4, 1, 1).expand(2, 4, 3, 5)
        return [
            *(sample("x".join(map(str, s)), x(*s)) for s in SHAPES),
            *(sample("x".join(map(str, s)) + "-channels_last", last(x(*s)), OPTIONAL) for s in SHAPES[:6]),
            *(sample("-".join(["2x5x3x4", *(s or ["plain"])]), x(2, 5, 3, 4), s) for s in subsets),
            *(sample("-".join(["channels_last", *(s or ["plain"])]), last(x(2, 5, 3, 4)), s) for s in subsets[:2]),
            *(sample(f"2x6x2x5-{name}", small, activation=name) for name in ACTIVATIONS),
            sample("2x6x2x5-all-relu", small, OPTIONAL, activation="relu"),
            sample("channels_last-all-silu", last(small), OPTIONAL, activation="silu"),
            sample("channels_last-leaky_relu-0.3", last(small), activation="leaky_relu", slope=0.3),
            sample("2x6x2x5-leaky_relu-0.3", small, OPTIONAL, activation="leaky_relu", slope=0.3),
            sample("2x6x2x5-eps", small, eps=0.1),
            sample("skip-channels_last", a, skip=last(b), activation="relu"),
            sample("input-channels_last", last(a), skip=b, activation="gelu"),
            sample("2x24x3x3-far", far),
            sample("2x24x3x3-far-channels_last", last(far)),
            sample("2x4x3x5-constant", constant.contiguous()),
            sample("strided-pixels", x(2, 20, 6, 14)[:, :, ::2, 3:10], OPTIONAL),
            sample("strided-channels", x(2, 44, 3, 5)[:, 3:40:2], OPTIONAL, activation="tanh"),
            sample("expanded", x(2, 12, 3, 1).expand(2, 12, 3, 4)),
            sample("0x12x3x4", x(0, 12, 3, 4), OPTIONAL, activation="relu"),
            sample("2x12x0x4", x(2, 12, 0, 4)),
            sample("1x1x150x300", x(1, 1, 150, 300), big=True),  # one statistic for all threads
            sample("1x4x100x150-channels_last", last(x(1, 4, 100, 150)), OPTIONAL, big=True, activation="silu"),
        ]

    def op(self, function: Callable, torch: Callable, samples: list[Sample], state: tuple[str, ...] = RUNNING) -> Op:
        return Op(
            self.stem, function, torch, samples, self.make, (*OPTIONAL[1:], *state), added="skip", state=state
        )  # fmt: skip

    def make(
        self, shape: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu", *, skip: bool = False,
        activation: str | None = None, parameter_dtype: torch.dtype | None = None, channels_last: bool = False,
        **call: Any,
    ) -> Sample:  # fmt: skip
        """One random sample of shape (N, C, *), without running statistics, or with the first state."""

        def image() -> Tensor:
            t = torch.randn(shape, dtype=dtype, device=device)
            return last(t) if channels_last else t

        def zeros(*shape) -> Tensor:
            return torch.zeros(shape, dtype=parameter_dtype or dtype, device=device)

        weight, bias = torch.randn(2, shape[1], dtype=parameter_dtype or dtype, device=device)
        tensors = {"input": image(), "weight": weight, "bias": bias} | ({"skip": image()} if skip else {})
        if self.state is not None:
            tensors |= self.state(zeros(shape[1]), zeros(shape[1]) + 1, zeros)
        call = {"eps": 1e-5, "activation": activation} | self.arguments(shape[1]) | call
        return Sample("x".join(map(str, shape)), call, tensors, (image(),), self.statistics(len(shape)))
