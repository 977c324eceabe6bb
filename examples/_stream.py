"""A small network that learns from a stream: each sample is first predicted, then learnt from, and never seen again."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import normkernels as nk

WIDTH = 64
PLAIN, LAYER, GROUP, ONLINE = "no norm", "layer norm", "group norm", "online norm"
STABLE = "online norm, stable and bias-corrected"
RENORM, STREAMING = "batch renorm, in pairs", "streaming norm, in pairs"


@dataclass(frozen=True)
class Stream:
    """Samples in the order in which they arrive, and the learning rates that every arm is tried with."""

    name: str
    samples: Tensor
    labels: Tensor
    rates: tuple[float, ...]

    @property
    def guess(self) -> float:
        """% right by always answering the most frequent class."""
        return (100 * self.labels.bincount().max() / len(self.labels)).item()


@dataclass(frozen=True)
class Arm:
    """A normaliser, ``norm(features, activation=...)``, or none; ``batch``: samples for each step of SGD."""

    norm: Callable[..., nn.Module] | None
    batch: int = 1


def _group_norm(features: int, **extras) -> nk.GroupNorm:
    """8 groups, or 5 of 30 features, or 7 of 49."""
    return nk.GroupNorm(next(groups for groups in (8, 5, 7) if features % groups == 0), features, **extras)


_RAMP = {"warmup_steps": 50, "r_ramp_steps": 350, "d_ramp_steps": 200}  # a hundred times as fast as by default
ARMS = {
    PLAIN: Arm(None), LAYER: Arm(nk.LayerNorm), GROUP: Arm(_group_norm),
    ONLINE: Arm(nk.OnlineNorm1d), STABLE: Arm(partial(nk.OnlineNorm1d, stable=True, bias_correction=True)),
    RENORM: Arm(partial(nk.BatchRenorm1d, momentum=0.03, **_RAMP), batch=2),
    STREAMING: Arm(nk.StreamingNorm1d, batch=2),
}  # fmt: skip


def network(arm: Arm, features: int, classes: int, seed: int) -> nn.Module:
    """Two hidden layers with norm and ReLU; what enters the first one is normalised too."""
    torch.manual_seed(seed)

    def norm(n: int, activation: str | None) -> nn.Module:
        plain = nn.Identity() if activation is None else nn.ReLU()
        return plain if arm.norm is None else arm.norm(n, activation=activation)

    return nn.Sequential(
        norm(features, None),
        nn.Linear(features, WIDTH),
        norm(WIDTH, "relu"),
        nn.Linear(WIDTH, WIDTH),
        norm(WIDTH, "relu"),
        nn.Linear(WIDTH, classes),
    )


def learn(name: str, stream: Stream, rate: float, seed: int) -> Generator[None, None, list[bool]]:
    """Which samples were answered right, before anything was learnt from them; plain SGD, one pass."""
    arm, samples, labels = ARMS[name], stream.samples, stream.labels
    model = network(arm, samples.shape[1], int(labels.max()) + 1, seed).to(samples.device)
    optimizer, right = torch.optim.SGD(model.parameters(), rate), []
    for module in model.modules():
        if isinstance(module, nk.StreamingNorm1d):
            module.follow(optimizer)
    for x, label in zip(samples.split(arm.batch), labels.split(arm.batch), strict=True):
        scores = model(x) if arm.batch == 1 else _answer(model, x)
        right += (scores.argmax(1) == label).tolist()
        if len(x) < arm.batch:
            break
        loss = nn.functional.cross_entropy(scores if arm.batch == 1 else model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield
    return right


@torch.no_grad()
def _answer(model: nn.Module, x: Tensor) -> Tensor:
    """What the model would answer to each sample alone; a sample of a pair cannot look at the pair's statistics."""
    scores = model.eval()(x)
    model.train()
    return scores
