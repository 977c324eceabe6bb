"""What the samples of the filter family share: weights of many shapes and layouts, a filter in each slice."""

import torch
from torch import Tensor

from normkernels.cases import Op, Sample, adversarial, seeded

# two elements; odd; a power of two; more filters than programs; long; convolutions; depthwise
SHAPES = [
    (3, 2), (4, 31), (4, 32), (5, 33), (37, 250), (3, 4099), (6, 5, 3), (7, 4, 3, 3), (2, 3, 2, 3, 4), (40, 1, 3, 3),
]  # fmt: skip


def others(rank: int, dim: int | None) -> tuple[int, ...]:
    """The dims of one filter."""
    return tuple(d for d in range(rank) if d != dim)


def filter_samples(stem: str, weight: str, gain: str, required: bool, dims: bool) -> list[Sample]:
    """``weight`` and ``gain`` name the tensors; ``dims``: the filters may lie along any dim."""

    def sample(id: str, w: Tensor, dim: int | None = 0, present=True, big=False, **call) -> Sample:
        g = seeded(f"{stem}-{id}")
        filters = 1 if dim is None else w.shape[dim]
        length = torch.randn(filters, generator=g, dtype=w.dtype) if present else None
        dy = torch.randn(w.shape, generator=g, dtype=w.dtype)
        call |= {"dim": dim} if dims else {}
        return Sample(id, call, {weight: w, gain: length}, (dy,), others(w.dim(), dim), big)

    def w(*shape: int, dim: int | None = 0) -> Tensor:
        return adversarial(seeded(f"{stem}-{shape}-{dim}"), shape, others(len(shape), dim))

    lies_last = w(6, 4, 3, 3).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    zeros = w(5, 33).index_fill(0, torch.tensor([1, 4]), 0.0)
    found = [
        *(sample("x".join(map(str, shape)), w(*shape)) for shape in SHAPES),
        sample("2x40000", w(2, 40_000), big=True),  # more than one program holds
        sample("1x200000", w(1, 200_000), big=True),  # one filter for all threads
        sample("channels_last", lies_last),
        sample("strided", w(7, 60)[:, 5:38]),
        sample("expanded", w(1, 33).expand(6, 33)),
        sample("far", 1e4 + 1e-2 * torch.randn(6, 40, generator=seeded(stem), dtype=torch.float64)),
        sample("zeros", zeros),
        sample("0x33", w(0, 33)),
        sample("4x0", w(4, 0)),
    ]
    if not required:
        found += [sample("7x33-plain", w(7, 33), present=False), sample("5x4x3-plain", w(5, 4, 3), present=False)]
    if dims:
        found += [
            sample("33x5-dim1", w(33, 5, dim=1), 1),
            sample("4x7x3-dim1", w(4, 7, 3, dim=1), 1),
            sample("4x3x33-dim2", w(4, 3, 33, dim=2), 2),
            sample("6x40-whole", w(6, 40, dim=None), None),
            sample("9-whole", w(9, dim=None), None),
        ]
    return found


def make_filters(stem: str, weight: str, gain: str):
    """The ``make`` of a function of weights: shape is (M, N) or a convolution's."""

    def make(shape, dtype=torch.float32, device="cpu", *, activation=None, parameter_dtype=None) -> Sample:
        tensors = {
            weight: torch.randn(shape, dtype=dtype, device=device),
            gain: torch.randn(shape[0], dtype=parameter_dtype or dtype, device=device),
        }
        dy = torch.randn(shape, dtype=dtype, device=device)
        return Sample("x".join(map(str, shape)), {}, tensors, (dy,), others(len(shape), 0))

    return make


def filter_op(stem: str, function, torch_twin, weight: str, gain: str, required: bool, dims: bool) -> Op:
    samples = filter_samples(stem, weight, gain, required, dims)
    make = make_filters(stem, weight, gain)
    return Op(stem, function, torch_twin, samples, make, parameters=(gain,), added="", kind="filters")
