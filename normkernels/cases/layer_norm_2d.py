"""Layer norm over the channels of each pixel."""

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels._activations import ACTIVATIONS
from normkernels.cases import Op, Sample, adversarial, seeded
from normkernels.cases._rows import activate, scaled
from normkernels.functional import layer_norm_2d

OPTIONAL = ("residual", "weight", "bias")


def layer_norm_2d_torch(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    residual: Tensor | None = None, activation: str | None = None, slope: float = 0.01, weight_offset: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    s = input if residual is None else input + residual
    weight, bias = scaled(weight, weight_offset, s.dtype), scaled(bias, 0.0, s.dtype)
    y = F.layer_norm(s.movedim(1, -1), s.shape[1:2], weight, bias, eps).movedim(-1, 1)
    y = activate(y, activation, slope)
    return y if residual is None else (y, s)


def _x(*shape: int) -> Tensor:
    return adversarial(seeded(f"layer_norm_2d-{shape}"), shape, (1,))


def _sample(id: str, x: Tensor, present=OPTIONAL[1:], big=False, residual=None, **call) -> Sample:
    g = seeded(f"layer_norm_2d-{id}-parameters")
    sizes = {"residual": x.shape, "weight": x.shape[1:2], "bias": x.shape[1:2]}
    tensors = {k: torch.randn(sizes[k], generator=g, dtype=x.dtype) if k in present else None for k in OPTIONAL}
    if residual is not None:
        tensors["residual"] = residual
    outputs = 1 + (tensors["residual"] is not None)
    dys = tuple(torch.randn(x.shape, generator=g, dtype=x.dtype) for _ in range(outputs))
    return Sample(id, {"eps": 1e-5} | call, {"input": x} | tensors, dys, (1,), big)


def _last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _samples() -> list[Sample]:
    subsets = [s for n in range(len(OPTIONAL) + 1) for s in combinations(OPTIONAL, n)]
    shapes = [(2, 3, 5, 7), (2, 33, 4, 4), (3, 31, 40), (2, 8, 3, 4, 5), (5, 33, 1, 1), (1, 613, 1, 3)]
    x, far = _x(2, 20, 5, 7), 1e4 + 1e-2 * torch.randn(2, 24, 3, 3, generator=seeded("far"), dtype=torch.float64)
    return [
        *(_sample("x".join(map(str, s)), _x(*s)) for s in shapes),
        *(_sample("x".join(map(str, s)) + "-channels_last", _last(_x(*s)), OPTIONAL) for s in shapes[:4]),
        *(_sample("-".join(["2x5x3x4", *(s or ["plain"])]), _x(2, 5, 3, 4), s) for s in subsets),
        *(_sample(f"2x6x2x5-{a}", _x(2, 6, 2, 5), activation=a) for a in ACTIVATIONS),
        _sample("2x6x2x5-leaky_relu-0.3", _x(2, 6, 2, 5), OPTIONAL, activation="leaky_relu", slope=0.3),
        _sample("2x6x2x5-offset-all-tanh", _x(2, 6, 2, 5), OPTIONAL, weight_offset=1.0, activation="tanh"),
        _sample("2x1x4x4", _x(2, 1, 4, 4), ("bias",)),
        _sample("residual-channels_last", x, residual=_last(_x(2, 20, 5, 7).flip(0))),
        _sample("input-channels_last", _last(x), residual=_x(2, 20, 5, 7).flip(0), activation="gelu"),
        _sample("2x24x3x3-far", far),
        _sample("2x24x3x3-far-channels_last", _last(far)),
        _sample("2x9x4x3-constant", _x(2, 1, 4, 3).repeat(1, 9, 1, 1)),
        _sample("strided-pixels", _x(2, 20, 6, 14)[:, :, ::2, 3:10], OPTIONAL),
        _sample("strided-channels", _x(2, 44, 3, 5)[:, 3:40:2], OPTIONAL),
        _sample("expanded", _x(1, 12, 3, 1).expand(2, 12, 3, 4)),
        _sample("0x12x3x4", _x(0, 12, 3, 4), OPTIONAL),
        _sample("2x12x0x4", _x(2, 12, 0, 4)),
        _sample("1x45000x1x2", _x(1, 45_000, 1, 2), big=True),
        _sample("1x4x150x300", _x(1, 4, 150, 300), OPTIONAL, big=True),
    ]


def make(
    shape: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu", *, residual: bool = False,
    activation: str | None = None, parameter_dtype: torch.dtype | None = None, channels_last: bool = False,
) -> Sample:  # fmt: skip
    """One random sample of shape (B, C, H, W)."""
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def image() -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=layout)

    weight, bias = torch.randn(2, shape[1], dtype=parameter_dtype or dtype, device=device)
    tensors = {"input": image(), "weight": weight, "bias": bias} | ({"residual": image()} if residual else {})
    call = {"eps": 1e-5, "activation": activation}
    return Sample("x".join(map(str, shape)), call, tensors, tuple(image() for _ in range(1 + residual)), (1,))


OP = Op(
    stem="layer_norm_2d", function=layer_norm_2d, torch=layer_norm_2d_torch, samples=_samples(), make=make
)  # fmt: skip
