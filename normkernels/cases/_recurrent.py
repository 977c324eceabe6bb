"""What the samples of the recurrent family share: sequences, packed or not, in both directions, and every variant."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normkernels.cases import Op, Sample, seeded

PACKED = torch.tensor([5, 4, 4, 2])  # rows of each step
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
FORMS = [{"norm_terms": "sum"}, {"norm_over": "gate"}, {"norm_over": "joint"}, {"norm_cell": "carried"},
         {"norm_cell": None}, {"nonlinearity": "relu"}]  # fmt: skip
MIXED = {"norm_terms": "sum", "norm_over": "gate", "norm_cell": "carried", "nonlinearity": "relu", "reverse": True}


def takes(kind: str, batch: bool, option: str) -> bool:
    """Whether the function of that kind has the option."""
    own = {"norm_cell": kind == "lstm", "norm_over": kind != "rnn" and not batch, "nonlinearity": kind == "rnn"}
    return own.get(option, True)


def sample(
    stem: str, id: str, steps: int, batch: int, hidden: int, *, packed=False, plain=False, big=False,
    slots=3, dtype=torch.float64, device="cpu", parameter_dtype=None, **call,
) -> Sample:  # fmt: skip
    """steps, batch and hidden are sizes; a packed one has its own. A plain one has no norms' parameters, no states."""
    kind, is_batch = stem.rpartition("_")[2], stem.startswith("batch")
    gates, generator = GATES[kind], seeded(f"{stem}-{id}")
    call = {k: v for k, v in call.items() if takes(kind, is_batch, k)}
    rows = (int(PACKED.sum()),) if packed else (steps, batch)
    batch = int(PACKED[0]) if packed else batch

    def random(*shape: int, own: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, own or dtype)

    wide, normed = parameter_dtype or dtype, kind == "lstm" and call.get("norm_cell", "output")
    tensors: dict[str, Tensor | None] = {
        "input": random(*rows, gates * hidden),
        "weight_hh": random(gates * hidden, hidden) / hidden**0.5,
        "weight": None if plain else random(gates * hidden, own=wide),
        "bias": None if plain else random(gates * hidden, own=wide),
        "h_0": None if plain else random(batch, hidden) / 2,
    }
    if kind == "lstm":
        tensors |= {k: random(hidden, own=wide) if normed and not plain else None for k in ("cell_weight", "cell_bias")}
        tensors["c_0"] = None if plain else random(batch, hidden)
    if is_batch:
        call["training"] = call.get("training", True)
        statistics = {"running_": gates * hidden} | ({"cell_running_": hidden} if normed else {})
        for name, columns in statistics.items():
            present = not plain or not call["training"]
            tensors[name + "mean"] = random(slots, columns, own=wide) if present else None
            tensors[name + "var"] = 0.5 + random(slots, columns, own=wide).abs() if present else None
        call |= {k: None for k in ("running_mean", "running_var") if tensors[k] is None}
    call |= {"batch_sizes": PACKED} if packed else {}
    dys = (random(*rows, hidden), *(random(batch, hidden) for _ in range(2 if kind == "lstm" else 1)))
    return Sample(id, call, tensors, dys, (-1,), big)


def samples(stem: str) -> list[Sample]:
    kind, batch = stem.rpartition("_")[2], stem.startswith("batch")

    def one(id: str, steps=3, rows=4, hidden=6, **options) -> Sample:
        return sample(stem, id, steps, rows, hidden, **options)

    forms = {"-".join(map(str, form.values())): form for form in FORMS if takes(kind, batch, next(iter(form)))}
    packed = {"-".join(["packed", *name.split()]): name for name in ("", "reverse")}
    found = [
        one("3x4x6"),
        one("packed-reverse-mixed", packed=True, **MIXED),
        *(one(f"3x4x6-{name}", **form) for name, form in forms.items()),
        *(one(id, packed=True, reverse=bool(name)) for id, name in packed.items()),
        one("4x3x5-plain", 4, 3, 5, plain=True, reverse=True),
        one("2x3x130", 2, 3, 130),
        one("2x37x9", 2, 37, 9),
        one("3x0x6", 3, 0),
    ]
    if batch:
        found += [one("3x4x6-eval", training=False), one("packed-eval", packed=True, training=False, slots=2, **MIXED)]
    else:
        found += [one("5x1x33", 5, 1, 33), one("2x1x600", 2, 1, 600, big=True)]
    return found


def make_recurrent(stem: str) -> Callable[..., Sample]:
    """Shape: (B, H) for three steps, or (T, B, H)."""

    def make(shape, dtype=torch.float32, device="cpu", *, activation=None, parameter_dtype=None, **call) -> Sample:
        steps, batch, hidden = (3, *shape) if len(shape) == 2 else shape
        given = {"dtype": dtype, "device": device, "parameter_dtype": parameter_dtype} | call
        return sample(stem, "x".join(map(str, shape)), steps, batch, hidden, **given)

    return make


class Given(NamedTuple):
    """What a recurrent function is called with, as its twin of torch's ops reads it."""

    input: Tensor
    weight_hh: Tensor
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    cell_running_mean: Tensor | None = None
    cell_running_var: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    cell_weight: Tensor | None = None
    cell_bias: Tensor | None = None
    h_0: Tensor | None = None
    c_0: Tensor | None = None
    batch_sizes: Tensor | None = None
    nonlinearity: str = "tanh"
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5
    norm_over: str = "joint"
    norm_terms: str = "separate"
    norm_cell: str | None = "output"
    reverse: bool = False

    def activate(self, z: Tensor) -> Tensor:
        return z.tanh() if self.nonlinearity == "tanh" else z.relu()

    def unrolled(self, step: Callable, *firsts: Tensor | None) -> tuple[Tensor, ...]:
        """The loop that a user of torch writes: ``step(k, x, a, *states) -> new states``.

        k counts the steps taken, x is the input's term of one, a the recurrent one.
        """
        input, batch_sizes, reverse = self.input, self.batch_sizes, self.reverse
        sizes = [input.shape[1]] * len(input) if batch_sizes is None else batch_sizes.tolist()
        states = [input.new_zeros(sizes[0], self.weight_hh.shape[1]) if t is None else t for t in firsts]
        xs = list(input) if batch_sizes is None else list(input.split(sizes))
        ys = [input.new_empty(0)] * len(xs)
        for k in range(len(xs)):
            t = len(xs) - 1 - k if reverse else k
            h, *others = (s[: sizes[t]] for s in states)
            new = step(k, xs[t], h @ self.weight_hh.T, h, *others)
            states = [torch.cat([a, s[sizes[t] :]]) for a, s in zip(new, states, strict=True)]
            ys[t] = new[0]
        return (torch.stack(ys) if batch_sizes is None else torch.cat(ys), *states)

    def lstm(self, norm: Callable, cell_norm: Callable) -> tuple[Tensor, ...]:
        """The loop of an LSTM with ``norm(k, a)`` of the sums and ``cell_norm(k, c)`` of the cells."""

        def step(k, x, a, _, c):
            i, f, g, o = (norm(k, a) + x if self.norm_terms == "separate" else norm(k, a + x)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            normed = cell_norm(k, c) if self.norm_cell else c
            return o.sigmoid() * normed.tanh(), normed if self.norm_cell == "carried" else c

        return self.unrolled(step, self.h_0, self.c_0)


def row_norm(a: Tensor, weight, bias, eps: float, groups: tuple[int, ...]) -> Tensor:
    """Each group of gates by F.layer_norm."""
    parts = a.split([g * a.shape[1] // sum(groups) for g in groups], 1)
    xhat = torch.cat([F.layer_norm(part, part.shape[1:], eps=eps) for part in parts], 1)
    xhat = xhat if weight is None else xhat * weight
    return xhat if bias is None else xhat + bias


def column_norm(mean, var, weight, bias, given: Given) -> Callable[[int, Tensor], Tensor]:
    """norm(k, a): F.batch_norm with the statistics of the k-th step that is taken."""

    def norm(k, a):
        slot = 0 if mean is None else min(k, len(mean) - 1)
        running = (None, None) if mean is None else (mean[slot], var[slot])
        return F.batch_norm(a, *running, weight, bias, given.training, given.momentum, given.eps)

    return norm


def recurrent_op(stem: str, function: Callable, torch_twin: Callable, state: tuple[str, ...] = ()) -> Op:
    parameters = ("weight", "bias", "cell_weight", "cell_bias", *state)
    return Op(
        stem, function, torch_twin, samples(stem), make_recurrent(stem), parameters, added="", state=state,
        kind="recurrent", rounded=True,
    )  # fmt: skip
