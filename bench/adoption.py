"""``python -m bench.adoption``: real models before ``nk.convert``, after it, and after ``nk.revert``.

Random weights, float32, one thread: outputs, gradients and 30 steps of AdamW on one batch. What rounding does to such a
curve is torch against itself: the same model, with each weight moved to a neighbouring number before each step, several
times. Writes bench/results/adoption.csv and docs/adoption.md.
"""

import argparse
import contextlib
import copy
import csv
import io
import sys
from pathlib import Path

import torch
from torch import nn

import normkernels as nk

from . import adoption_steps
from .performance import table
from .report import geometric_mean
from .zoo import Model, models

ROOT = Path(__file__).parents[1]
FILE, PAGE = ROOT / "bench/results/adoption.csv", ROOT / "docs/adoption.md"
STEPS, TWINS, WITHIN = 30, 2, 2.0
INTRODUCTION = f"""# Real models, before and after

Written by `python -m bench.adoption` from [adoption.csv](../bench/results/adoption.csv): small models of transformers,
timm and diffusers with random weights, float32, on the CPU, `nk.convert(model)` with what it fuses.

* *norms*: how many became ours, how many took something over (an activation, an addition), how many stayed.
* *output*, *gradients*: how far ours is from torch's, as a part of the largest output and of the length of all
  gradients; in brackets how far torch is from itself with each weight moved to a neighbouring float32, the furthest of
  {TWINS}.
* *loss*: the largest difference of the loss over {STEPS} steps of AdamW on one batch, relative to the loss before them;
  in brackets torch's from itself, weights being moved so before each step. *within*: at most {WITHIN:g} times that.
* *reverted*: whether the model after `nk.revert` gives the same bits as the one that was never converted, over all
  steps.
"""

STEPS_INTRODUCTION = """
## What a step takes

Written from [adoption_steps.csv](../bench/results/adoption_steps.csv) (`python -m bench.adoption_steps`): the same
models, forward and backward, and a forward without gradients, each of these in a process of its own. How many times as
fast as torch's norms ours are, and in brackets torch's model is as a copy of it in the same rounds, which says what is
noise; compiled also ours with `use_backend("reference")`, whose ordinary ops the compiler fuses with others; what torch
takes; the peak of memory beyond what the model holds, ours as a part of torch's. In each round weights lie elsewhere in
memory and the models come in another order, for both change a step by hundredths. Where a model is compiled
among others changes it too, so a copy is compiled first and another last, and neither is timed. Before the last was
there, and before a layer was one call, were timed: training compiled, but of test_resnet, resnet18, regnetx_002 and the
UNet of diffusers; and inference compiled of Mamba-2 and of the first two models with group norm. Training compiled of
Falcon-H1, Mamba-2 and Qwen3-Next, and inference compiled of Mamba-2, were timed in one process, one place and one
order, against one of two copies.
"""

Curve = list[float]


def quietly(change, model: nn.Module):
    with contextlib.redirect_stdout(io.StringIO()):
        return change(model)


@torch.no_grad()
def nudge(module: nn.Module, seed: int) -> None:
    """Each weight to one of its two neighbours, by chance."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        up = torch.rand(p.shape, generator=generator) < 0.5
        p.copy_(torch.nextafter(p, torch.where(up, torch.inf, -torch.inf)))


def first_step(model: Model, module: nn.Module, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(output, all gradients)"""
    module.zero_grad()
    torch.manual_seed(0)  # of dropout
    y = model(module)
    nn.functional.mse_loss(y, target).backward()
    return y.detach(), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def curve(model: Model, module: nn.Module, target: torch.Tensor, seed: int | None = None) -> Curve:
    """The loss of each step; with a seed the weights are nudged before it."""
    optimizer, losses = torch.optim.AdamW(module.parameters(), 1e-3), []
    for step in range(STEPS):
        if seed is not None:
            nudge(module, STEPS * seed + step)
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(module), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def apart(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    (y, g), (z, h) = one, other
    return float((z - y).abs().max() / y.abs().max()), float((h - g).norm() / g.norm())


def furthest(curves: list[Curve], other: Curve) -> float:
    return max(abs(a - b) for c in curves for a, b in zip(c, other, strict=True)) / other[0]


def measure(model: Model) -> dict[str, str]:
    torch.manual_seed(0)
    plain = model.module.train()
    target = torch.randn_like(model(copy.deepcopy(plain)).detach())
    ours = copy.deepcopy(plain)
    report = quietly(nk.convert, ours)
    back = copy.deepcopy(ours)
    quietly(nk.revert, back)
    twins = [copy.deepcopy(plain) for _ in range(TWINS)]
    for seed, twin in enumerate(twins):
        nudge(twin, seed)
    made = [first_step(model, copy.deepcopy(m), target) for m in (plain, ours, *twins)]
    output, gradients = apart(made[0], made[1])
    of_twins = [apart(made[0], other) for other in made[2:]]
    torchs, mine, reverted = (curve(model, copy.deepcopy(m), target) for m in (plain, ours, back))
    again = [curve(model, copy.deepcopy(plain), target, seed) for seed in range(TWINS)]
    loss, chaos = furthest([mine], torchs), furthest(again, torchs)
    return {
        "model": model.name, "parameters": str(sum(p.numel() for p in plain.parameters())),
        "changed": str(len(report.changed)), "fused": str(len(report.fused)), "left": str(len(report.left)),
        "output": f"{output:.1e}", "torch_output": f"{max(t[0] for t in of_twins):.1e}",
        "gradients": f"{gradients:.1e}", "torch_gradients": f"{max(t[1] for t in of_twins):.1e}",
        "loss": f"{loss:.1e}", "torch_loss": f"{chaos:.1e}", "within": "yes" if loss <= WITHIN * chaos else "no",
        "reverted": "yes" if reverted == torchs else "no", "torch": torch.__version__,
    }  # fmt: skip


def page(rows: list[dict[str, str]]) -> str:
    heads = "model", "weights", "norms: ours, fused, left", "output", "gradients", "loss", "within", "reverted"
    lines = [
        [
            r["model"], f"{int(r['parameters']):,}", f"{r['changed']}, {r['fused']}, {r['left']}",
            *(f"{r[name]} ({r[f'torch_{name}']})" for name in ("output", "gradients", "loss")), r["within"],
            r["reverted"],
        ]
        for r in rows
    ]  # fmt: skip
    close = sum(r["within"] == "yes" for r in rows), sum(r["reverted"] == "yes" for r in rows)
    summary = f"{len(rows)} models: {close[0]} within, {close[1]} reverted to the bit. torch {rows[0]['torch']}."
    return f"{INTRODUCTION}\n{table(heads, lines)}\n\n{summary}\n{steps_page(adoption_steps.read())}"


def steps_page(rows: list[dict[str, str]]) -> str:
    """Of each model a line, of each mode and way three columns."""
    if not rows:
        return ""
    cells = {(r["model"], f"{r['mode']}, {r['way']}"): r for r in rows}
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    names = list(dict.fromkeys(name for name, _ in cells))
    lines = [[name, *(step_cell(cells[name, kind]) for kind in kinds)] for name in names]
    ours = {kind: [float(cells[name, kind]["ours"]) for name in names] for kind in kinds}
    means = [f"{kind} {geometric_mean(found):.3f} (least {min(found):.2f})" for kind, found in ours.items()]
    rounds = sorted(int(r["rounds"]) for r in rows)
    machine = f"{rows[0]['cpu']}, one thread, {rounds[0]} to {rounds[-1]} rounds, torch {rows[0]['torch']}"
    summary = f"Geometric means: {'; '.join(means)}. {machine}."
    return f"{STEPS_INTRODUCTION}\n{table(['model', *kinds], lines)}\n\n{summary}\n"


def step_cell(row: dict[str, str]) -> str:
    share = float(row["ours_mb"]) / max(float(row["mb"]), 0.1)
    fused = f", reference {row['composed']}" if row["way"] == "compiled" else ""
    return f"{row['ours']} ({row['again']}){fused}, {row['ms']} ms, memory {share:.2f}"


def read() -> list[dict[str, str]]:
    if not FILE.exists():
        return []
    with FILE.open() as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, str]]) -> None:
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    PAGE.write_text(page(rows))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.adoption", description=__doc__)
    parser.add_argument("--all", action="store_true", help="models that have a row too")
    parser.add_argument("--page", action="store_true", help="write the page from the file that is there, run nothing")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = [] if chosen.all else read()
    for model in () if chosen.page else models():
        if model.name in [row["model"] for row in rows]:
            continue
        rows.append(measure(model))
        sys.stdout.write(", ".join(rows[-1].values()) + "\n")
        sys.stdout.flush()
        write(rows)
    write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
