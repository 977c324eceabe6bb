"""A small network that learns from a stream: each sample is first predicted, then learnt from, and never seen again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import normkernels as nk

WIDTH = 64


@dataclass(frozen=True)
class Stream:
    """Samples in the order in which they arrive, and the learning rates that every arm is tried with."""

    name: str
    samples: Tensor
    labels: Tensor
    rates: tuple[float, ...]

    @property
    def guess(self) -> float:
        """The accuracy of always answering the most frequent class."""
        return (self.labels.bincount().max() / len(self.labels)).item()


@dataclass(frozen=True)
class Arm:
    """A normaliser, ``norm(features, activation=...)``, or none; ``batch``: samples for each step of SGD."""

    name: str
    norm: Callable[..., nn.Module] | None
    batch: int = 1


def arms(backend: str | None) -> list[Arm]:
    online = partial(nk.OnlineNorm1d, backend=backend)
    ramp = {"warmup_steps": 50, "r_ramp_steps": 350, "d_ramp_steps": 200}
    return [
        Arm("none", None),
        Arm("layer norm", partial(nk.LayerNorm, backend=backend)),
        Arm("group norm", partial(_group_norm, backend=backend)),
        Arm("online norm", online),
        Arm("online norm, stable, bias-corrected", partial(online, stable=True, bias_correction=True)),
        Arm("batch renorm, in pairs", partial(nk.BatchRenorm1d, momentum=0.03, **ramp, backend=backend), batch=2),
        Arm("streaming norm, in pairs", partial(nk.StreamingNorm1d, backend=backend), batch=2),
    ]


def _group_norm(features: int, **extras) -> nk.GroupNorm:
    """8 groups, or 5 of 30 features."""
    return nk.GroupNorm(8 if features % 8 == 0 else 5, features, **extras)


def network(arm: Arm, features: int, classes: int, seed: int) -> nn.Module:
    """Two hidden layers with norm and ReLU; what enters the first one is normalised too."""
    torch.manual_seed(seed)
    plain = {None: nn.Identity, "relu": nn.ReLU}

    def norm(n: int, activation: str | None) -> nn.Module:
        return plain[activation]() if arm.norm is None else arm.norm(n, activation=activation)

    return nn.Sequential(
        norm(features, None),
        nn.Linear(features, WIDTH),
        norm(WIDTH, "relu"),
        nn.Linear(WIDTH, WIDTH),
        norm(WIDTH, "relu"),
        nn.Linear(WIDTH, classes),
    )


def learn(arm: Arm, stream: Stream, rate: float, seed: int, device: str) -> list[bool]:
    """Which samples were answered right, before anything was learnt from them; plain SGD, one pass."""
    samples, labels = stream.samples.to(device), stream.labels.to(device)
    model = network(arm, samples.shape[1], int(labels.max()) + 1, seed).to(device)
    optimizer, right = torch.optim.SGD(model.parameters(), rate), []
    for module in model.modules():
        if isinstance(module, nk.StreamingNorm1d):
            module.follow(optimizer)
    for x, label in zip(samples.split(arm.batch), labels.split(arm.batch), strict=True):
        scores = model(x) if arm.batch == 1 else _answer(model, x)  # one sample cannot look at its own statistics
        right.append(scores.argmax(1) == label)
        if len(x) < arm.batch:
            break
        loss = nn.functional.cross_entropy(scores if arm.batch == 1 else model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat(right).tolist()


@torch.no_grad()
def _answer(model: nn.Module, x: Tensor) -> Tensor:
    """What the model would answer to each sample alone."""
    scores = model.eval()(x)
    model.train()
    return scores


def refusal() -> str:
    """What batch norm says to one sample."""
    try:
        nk.BatchNorm1d(WIDTH)(torch.zeros(1, WIDTH))
    except ValueError as error:
        return str(error)
    return "(it took one sample)"
