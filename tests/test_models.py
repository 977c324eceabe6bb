"""Models of bench.zoo (one of its own, and those of the libraries that are installed) through convert and revert."""

import contextlib
import copy
import io
from itertools import product

import pytest
import torch
from torch import nn

import normkernels as nk
from bench import adoption, adoption_steps, turns
from bench.adoption import TWINS, apart, first_step, nudge
from bench.zoo import Model, models

torch.manual_seed(0)
MODELS = list(models())
NOISE = 4  # of torch from itself, one rounding in each weight; ours rounds otherwise in each norm


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_there_and_back(model: Model):
    """Output and all gradients, ours within what a rounding in each weight does, and to the bit after revert."""
    plain = model.module.train()
    ours = copy.deepcopy(plain)
    with contextlib.redirect_stdout(io.StringIO()):
        report = nk.convert(ours)
    assert report.changed
    assert not [m for m in ours.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm) and not is_ours(m)]
    target = torch.zeros_like(model(copy.deepcopy(plain)).detach())
    twins = [copy.deepcopy(plain) for _ in range(TWINS)]
    for seed, twin in enumerate(twins):
        nudge(twin, seed)
    want, *others = (first_step(model, copy.deepcopy(m), target) for m in (plain, *twins))
    found = apart(want, first_step(model, copy.deepcopy(ours), target))
    noise = [apart(want, other) for other in others]
    assert found[0] <= NOISE * max(n[0] for n in noise)
    assert found[1] <= NOISE * max(n[1] for n in noise)
    with contextlib.redirect_stdout(io.StringIO()):
        nk.revert(ours)
    assert all(map(torch.equal, first_step(model, ours, target), want))


def is_ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("normkernels.")


def test_what_steps_take(monkeypatch):
    """A row of each mode, both ways, with numbers that can be; a line of the page."""
    monkeypatch.setattr(torch, "compile", lambda module: module)
    module = nn.Sequential(nn.Linear(8, 64), nn.LayerNorm(64), nn.GELU())
    kinds = list(product(("training", "inference"), ("eager", "compiled")))
    rows = [adoption_steps.row(Model("small", module, torch.randn(16, 8)), *kind, seconds=0.0) for kind in kinds]
    assert [(r["mode"], r["way"]) for r in rows] == kinds
    assert all(float(r[name]) > 0 for r in rows for name in ("ms", "again", "ours", "composed"))
    one, other = (turns.called(module) for _ in range(2))
    assert one.__code__ is not other.__code__  # or Dynamo keeps one cache for both
    assert adoption_steps.peak(lambda: torch.empty(3 << 20, dtype=torch.uint8)) == 3.0
    (line,) = (line for line in adoption.steps_page(rows).splitlines() if line.startswith("| small | "))
    assert all(f"{r['ours']} ({r['again']})" in line for r in rows)
