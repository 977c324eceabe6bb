"""What does and does not change the output of every normaliser: measured in float64, written to docs/invariances.

python tests/invariances.py --out docs

A norm of input stands behind a product with weights, as in a net; a layer with weights is measured by its own. Every
layer of ``layers.py`` is, and both norms of weights, so that a new one is in the table once it is listed there.
"""

import argparse
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from invariances_page import CALLS, FACTOR, MODES, OTHERS, PIXEL, SAMPLES, SHRINKS, SINGLE, write
from layers import KINDS, output
from torch import Tensor, nn

import normkernels as nk


class Behind(nn.Module):
    """A norm of input behind a product with weights, over dim 1."""

    def __init__(self, norm: nn.Module, features: int) -> None:
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.randn(features, features, dtype=torch.float64)), norm

    def forward(self, x: Tensor) -> Tensor:
        return output(self.norm, (x.movedim(1, -1) @ self.weight.T).movedim(-1, 1).contiguous())


class Subject(NamedTuple):
    """One row: a module, the dim of its samples, what it is fed, and the names of its weights."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    samples: int
    weights: tuple[str, ...]

    def input(self, seed: int, count: int | None = None) -> Tensor:
        shape = list(self.shape)
        shape[self.samples] = count or shape[self.samples]
        return 1 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def sample(self, y: Tensor, i: int) -> Tensor:
        return y.select(self.samples, i)


class Change(NamedTuple):
    """Of the data, ``of_data(x, subject)``, or of the weights, ``of_weights(w)``: and the word for it."""

    word: str
    of_data: Callable[[Tensor, Subject], Tensor] = lambda x, _: x
    of_weights: Callable[[Tensor], Tensor] = lambda w: w


def _one_sample(x: Tensor, subject: Subject) -> Tensor:
    factors = torch.ones(x.shape[subject.samples], dtype=x.dtype)
    factors[-1] = FACTOR
    return x * factors.view([-1 if d == subject.samples else 1 for d in range(x.dim())])


def _features(x: Tensor, subject: Subject) -> Tensor:
    """A number for each feature."""
    dim = x.dim() - 1 if subject.samples == 1 else 1
    return torch.linspace(-2, 3, x.shape[dim], dtype=x.dtype).view([-1 if d == dim else 1 for d in range(x.dim())])


def _by_row(w: Tensor) -> Tensor:
    return w * torch.linspace(0.5, FACTOR, len(w), dtype=w.dtype).view(-1, *[1] * (w.dim() - 1))


CHANGES = (
    Change("data rescaled", lambda x, _: FACTOR * x),
    Change("data shifted", lambda x, subject: x + _features(x, subject)),
    Change("one sample rescaled", _one_sample),
    Change("weight matrix rescaled", of_weights=lambda w: FACTOR * w),
    Change("weight matrix shifted", of_weights=lambda w: w + torch.linspace(-1, 1, w[0].numel()).view_as(w[0])),
    Change("weight vectors rescaled", of_weights=_by_row),
)
COLUMNS = ("layer", *(c.word for c in CHANGES), SHRINKS, MODES, OTHERS, SINGLE, PIXEL)


def subjects() -> Iterator[Subject]:
    torch.manual_seed(1)
    yield Subject("no norm", Behind(nn.Identity(), 4), (6, 4, 5), 0, ("weight",))
    for layer in KINDS:
        names = inspect.signature(getattr(nk, layer.name)).parameters
        exact = {
            k: 1e-30 for k in ("eps", "ls_eps") if k in names
        }  # so that what is invariant is so to the last digits
        module = layer.make(dtype=torch.float64, **exact)
        own = tuple(k for k, p in module.named_parameters() if k.startswith("weight") and p.dim() > 1)
        sequences = layer.name.endswith(("RNN", "LSTM", "GRU"))
        torch.manual_seed(1)
        module = module if own else Behind(module, layer.shape[1])
        yield Subject(str(layer), module, layer.shape, int(sequences), own or ("weight",))
    for kind, exact in (("weight_norm", {}), ("weight_standardization", {"eps": 1e-30})):
        torch.manual_seed(0)
        module = getattr(nk.parametrizations, kind)(nn.Linear(4, 3, dtype=torch.float64), **exact)
        weight = "parametrizations.weight.original" + "1" * (kind == "weight_norm")
        yield Subject(f"parametrizations.{kind}", module, (6, 4), 0, (weight,))


def changed(subject: Subject, change: Change) -> nn.Module:
    module = deepcopy(subject.module)
    with torch.no_grad():
        for name in subject.weights:
            p = module.get_parameter(name)
            p.copy_(change.of_weights(p))
    return module


def adapted(subject: Subject, change: Change) -> nn.Module:
    """In training on changed data, by changed weights: a state has then forgotten how it started."""
    module = changed(subject, change)
    with torch.no_grad():
        for seed in range(CALLS):
            module(change.of_data(subject.input(seed, SAMPLES), subject))
            for part in module.modules():
                if isinstance(part, nk.StreamingNorm1d | nk.StreamingNorm2d | nk.StreamingNorm3d):
                    part.weights_changed()
    return module


def distance(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / a.norm()).item()


def gradient(subject: Subject, module: nn.Module, x: Tensor) -> float:
    """The length of that of all weights, of a loss that is linear in the output."""
    module = deepcopy(module)
    y = output(module, x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype))
    grads = [module.get_parameter(name).grad for name in subject.weights]
    return sum(g.square().sum().item() for g in grads if g is not None) ** 0.5


def measure(subject: Subject) -> dict[str, str]:
    """The row: where there is a state, two numbers, "at once; with the state adapted"."""
    x, settled = subject.input(1000), adapted(subject, Change(""))
    y, size = output(deepcopy(settled), x), gradient(subject, settled, x)
    pairs: dict[str, list[float]] = {c.word: [] for c in CHANGES} | {SHRINKS: []}
    for change in CHANGES:
        moved = change.of_data(x, subject)
        for source in [settled] + [adapted(subject, change)] * bool(list(settled.buffers())):
            other = changed(subject, change)
            other.load_state_dict(dict(source.named_buffers()), strict=False)
            pairs[change.word].append(distance(y, output(deepcopy(other), moved)))
            if change.word == "weight matrix rescaled":
                pairs[SHRINKS].append(abs(FACTOR * gradient(subject, other, x) / size - 1))
    found = {word: "; ".join(map(_number, values)) for word, values in pairs.items()}
    found |= {MODES: _number(distance(y, output(deepcopy(settled).eval(), x)))}
    company = subject.input(1001)
    company.select(subject.samples, -1).copy_(subject.sample(x, -1))
    found |= {OTHERS: _number(distance(*(subject.sample(output(deepcopy(settled), t), -1) for t in (x, company))))}
    one = x.narrow(subject.samples, 0, 1)
    image = isinstance(subject.module, Behind) and one.dim() > 2  # what has a kernel of its own needs more pixels
    pixel = one[(..., *[slice(1)] * (one.dim() - 2))] if image else None
    found |= {SINGLE: _trains(subject, settled, one), PIXEL: "" if pixel is None else _trains(subject, settled, pixel)}
    return {"layer": subject.name} | {column: found[column] for column in COLUMNS[1:]}


def _number(value: float) -> str:
    return f"{value:.1e}" if value > 1e-9 else "0"


def _trains(subject: Subject, module: nn.Module, x: Tensor) -> str:
    try:
        return "yes" if gradient(subject, module, x) > 1e-9 else "no gradient"
    except ValueError:
        return "refused"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for table and page")
    parser.add_argument("--quick", action="store_true", help="the first five rows")
    chosen = parser.parse_args()
    write([measure(subject) for subject in itertools.islice(subjects(), 5 if chosen.quick else None)], chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
