"""What the samples of the row family share: shapes, layouts, gates, and every subset of the optional tensors."""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels._activations import ACTIVATIONS
from normkernels.cases import Op, Sample, adversarial, seeded

# two columns; below, at and above a power of two; a prime; more rows than programs, of odd length too; wide; thirds and
# fifths of powers of two
SHAPES = [(3, 2), (4, 31), (4, 32), (5, 33), (1, 257), (37, 250), (70, 777), (3, 4099), (2, 5120)]


def activate(u: Tensor, name: str | None, slope: float) -> Tensor:
    """The activation as torch spells it."""
    if name in (None, "identity"):
        return u
    if name == "gelu_tanh":
        return F.gelu(u, approximate="tanh")
    if name == "hardsigmoid":  # F.hardsigmoid rounds 1 / 6 to float32 in its derivative, in float64 too
        return F.relu6(u + 3) / 6
    return F.leaky_relu(u, slope) if name == "leaky_relu" else getattr(F, name)(u)


def completed(u: Tensor, gate: Tensor | None, name: str | None, slope: float) -> Tensor:
    """What follows weight and bias: the activation, or what it makes of a gate."""
    return activate(u, name, slope) if gate is None else u * activate(gate.to(u.dtype), name, slope)


def scaled(weight: Tensor | None, offset: float, dtype: torch.dtype) -> Tensor | None:
    """weight + offset in ``dtype``, which torch's norms want of it."""
    return None if weight is None else (weight + offset if offset else weight).to(dtype)


def each_scaled(u: Tensor, weight: Tensor | None, bias: Tensor | None, offset: float, rank: int) -> Tensor:
    """What follows a norm over the last ``rank`` dims where weight and bias have a row for each sample."""
    sizes = (len(u), *[1] * (u.dim() - 1 - rank), *u.shape[u.dim() - rank :])
    weight = scaled(weight, offset, u.dtype)
    u = u if weight is None else u * weight.view(sizes)
    return u if bias is None else u + bias.to(u.dtype).view(sizes)


def has_rows(normalized_shape: Sequence[int], *parameters: Tensor | None) -> bool:
    """Whether weight or bias has a row for each sample."""
    return any(t is not None and t.dim() > len(normalized_shape) for t in parameters)


def row_samples(stem: str, optional: tuple[str, ...], eps: float) -> list[Sample]:
    """The samples of a norm over trailing dims; ``optional`` names its optional tensors."""
    parameters = optional[1:]

    def sample(
        id: str, x: Tensor, present=parameters, shape=None, big=False, each=False, gated=False, **call
    ) -> Sample:
        g = seeded(f"{stem}-{id}-parameters")
        shape = tuple(x.shape[-1:] if shape is None else shape)
        sizes = {"residual": x.shape} | dict.fromkeys(parameters, (len(x), *shape) if each else shape)
        tensors = {k: torch.randn(sizes[k], generator=g, dtype=x.dtype) if k in present else None for k in optional}
        dys = tuple(torch.randn(x.shape, generator=g, dtype=x.dtype) for _ in range(1 + ("residual" in present)))
        if gated:  # half of each row of a wider tensor, as a projection leaves it
            wide = torch.randn(*x.shape[: x.dim() - 1], 2 * x.shape[-1], generator=g, dtype=x.dtype)
            tensors["gate"] = wide[..., x.shape[-1] :]
        dims = tuple(range(x.dim() - len(shape), x.dim()))
        call = {"normalized_shape": shape, "eps": eps} | call
        return Sample(id, call, {"input": x} | tensors, dys, dims, big)

    def x(*shape: int, last: int = 1) -> Tensor:
        return adversarial(seeded(f"{stem}-{shape}"), shape, range(len(shape) - last, len(shape)))

    subsets = [s for n in range(len(optional) + 1) for s in combinations(optional, n)]
    far = torch.randn(6, 100, generator=seeded(stem), dtype=torch.float64)
    constant = torch.tensor([0.0, 1.0, -3.7, 1e4], dtype=torch.float64)[:, None].repeat(1, 65)
    return [
        # one column: centring leaves 0 exactly, and a weight would leave the rounding of g, which no input moves
        sample("3x1", x(3, 1), [p for p in parameters if p != "weight" or "bias" not in parameters]),
        *(sample(f"{m}x{n}", x(m, n)) for m, n in SHAPES),
        sample("2x40000-all-silu", x(2, 40_000), optional, big=True, activation="silu"),  # more than one program holds
        sample("1x200000", x(1, 200_000), big=True),  # one row for all threads
        *(sample("-".join(["7x33", *(s or ["plain"])]), x(7, 33), s) for s in subsets),
        *(sample(f"6x40-{a}", x(6, 40), activation=a) for a in ACTIVATIONS),
        sample("6x40-all-gelu", x(6, 40), optional, activation="gelu"),
        sample("6x40-leaky_relu-0.3", x(6, 40), optional, activation="leaky_relu", slope=0.3),
        sample("6x40-offset", x(6, 40), weight_offset=1.0),
        sample("6x40-offset-all-tanh", x(6, 40), optional, weight_offset=1.0, activation="tanh"),
        sample("6x40-eps", x(6, 40), eps=0.1),
        sample("6x40-far", 1e4 + 1e-2 * far[:, :40]),
        sample("6x100-farther", 1e4 + 1e-2 * far, optional),
        sample("4x65-constant", constant),
        sample("7x33-strided-rows", x(7, 60)[:, 5:38]),
        sample("7x33-strided-rows-all", x(7, 60)[:, 5:38], optional),
        sample("9x33-every-second-row", x(18, 33)[::2], optional),
        sample("7x33-apart-columns", adversarial(seeded(stem), (33, 7), (0,)).T, optional),
        sample("6x33-expanded", x(1, 33).expand(6, 33)),
        sample("2x5x2x3x33-heads-of-packed", x(2, 5, 3, 3, 33)[:, :, :2], optional, activation="gelu"),
        sample("2x3x5x64-tokens-of-heads", x(2, 5, 3, 3, 64).permute(2, 0, 3, 1, 4)[0]),
        sample("3x2x5x5-tokens-of-heads-all", x(3, 5, 3, 2, 5).permute(2, 0, 3, 1, 4)[2], optional),
        sample("2x3x4x40000-tokens-of-heads", x(2, 4, 3, 40_000).transpose(1, 2), big=True),
        sample("40", x(40)),
        sample("2x3x40", x(2, 3, 40), optional),
        sample("3x4x5x6-last-two", x(3, 4, 5, 6, last=2), optional, shape=(5, 6)),
        sample("3x2x5x6-permuted", x(3, 5, 6, 2, last=3).movedim(-1, 1), shape=(5, 6)),
        sample("3x5x40-each-all-silu", x(3, 5, 40), optional, each=True, activation="silu", weight_offset=1.0),
        sample("2x35x777-each", x(2, 35, 777), each=True),
        sample("4x2x5x6-each-last-two", x(4, 2, 5, 6, last=2), optional, shape=(5, 6), each=True),
        sample("70x96-each", x(70, 96), each=True, activation="gelu"),
        sample("9x2x64-each-weight", x(9, 2, 64), ("weight",), each=True),
        sample("3x2x5-each-bias", x(3, 2, 5), ("bias",), each=True),
        sample("2x3x40000-each-all-silu", x(2, 3, 40_000), optional, big=True, each=True, activation="silu"),
        sample("7x33-gated-silu", x(7, 33), gated=True, activation="silu"),
        sample("6x40-gated", x(6, 40), (), gated=True),
        sample("70x96-gated-all-sigmoid", x(70, 96), optional, gated=True, activation="sigmoid", weight_offset=1.0),
        sample("5x3-gated-all-gelu", x(5, 3), optional, gated=True, activation="gelu"),
        sample("3x5x40-each-gated-all-silu", x(3, 5, 40), optional, each=True, gated=True, activation="silu"),
        sample("2x3x5x6-gated-last-two", x(2, 3, 5, 6, last=2), shape=(5, 6), gated=True, activation="tanh"),
        sample("2x3x5x96-each-gated-tokens", x(2, 5, 3, 96).transpose(1, 2), each=True, gated=True, activation="silu"),
        sample("3x4099-gated-silu", x(3, 4099), gated=True, activation="silu"),
        sample("2x40000-gated-all-silu", x(2, 40_000), optional, big=True, gated=True, activation="silu"),
        sample("0x33", x(0, 33), optional),
        sample("0x40-gated", x(0, 40), optional, gated=True, activation="silu"),
        sample("0x2x33-each", x(0, 2, 33), each=True),
        sample("2x0x33", x(2, 0, 33)),
    ]


def make_rows(stem: str, optional: tuple[str, ...], eps: float):
    """The ``make`` of a norm over the last dim: shape is (M, N)."""

    def make(
        shape, dtype=torch.float32, device="cpu", *, residual=False, activation=None, parameter_dtype=None
    ) -> Sample:
        wanted = optional if residual else optional[1:]
        sizes: dict[str, tuple[int, ...]] = {"residual": shape} | dict.fromkeys(optional[1:], tuple(shape[-1:]))
        tensors = {"input": torch.randn(shape, dtype=dtype, device=device)} | {
            k: torch.randn(sizes[k], dtype=dtype if k == "residual" else parameter_dtype or dtype, device=device)
            for k in wanted
        }
        dys = tuple(torch.randn(shape, dtype=dtype, device=device) for _ in range(1 + residual))
        call = {"normalized_shape": tuple(shape[-1:]), "eps": eps, "activation": activation}
        return Sample("x".join(map(str, shape)), call, tensors, dys, (len(shape) - 1,))

    return make


def row_op(stem: str, function: Callable, torch_twin: Callable, optional: tuple[str, ...], eps: float) -> Op:
    samples, make = row_samples(stem, optional, eps), make_rows(stem, optional, eps)
    return Op(stem, function, torch_twin, samples, make, parameters=optional[1:])
