"""One task after the other: check, then time; and what a call costs on the host."""

from collections.abc import Iterator

import torch

import normkernels as nk
from normkernels._backends import NAMES

from .providers import PEERS, Task
from .report import Row
from .timing import Timing, measure


def run(task: Task, providers: list[str], modes: list[str], threads: int, seconds: float) -> list[Row]:
    """A row for every mode and provider. Ours are timed only when right; peers always, since people run them anyway."""
    torch.set_num_threads(threads)
    checks = {p: _check(task, p) for p in providers if p != "copy"}
    right = [p for p in providers if checks.get(p, "ok") == "ok" or (p not in NAMES and checks[p].startswith("OFF"))]
    sets, rows = task.sets(), []
    for mode in modes:
        calls = {}
        for p in right:
            try:
                calls[p] = task.calls(p, mode, sets)
                calls[p][0]()
            except Exception as error:  # out of memory, say: whatever one provider raises, the others go on
                checks[p] = _name(error)
                calls.pop(p, None)
        timings = measure(calls, task.device, seconds)
        rows += [_row(task, mode, threads, p, timings, checks) for p in providers]
    return rows


def _check(task: Task, provider: str) -> str:
    """``ok``, ``OFF`` with the worst error in units of what is allowed, or the error that the call raised."""
    try:
        worst = task.worst(provider)
        return "ok" if worst <= 1 else f"OFF {worst:.3g}x"
    except Exception as error:
        return _name(error)


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _row(task: Task, mode: str, threads: int, provider: str, timings: dict[str, Timing], checks: dict) -> Row:
    def ratio(other: str) -> float | None:
        return timings[other].us / timing.us if other in timings else None

    timing, total = timings.get(provider), task.minimum_bytes(mode)
    row = Row(task.op, mode, task.shape, str(task.dtype).removeprefix("torch."), provider, threads)
    row.check = checks.get(provider, "")
    if timing:
        row.us, row.p20, row.p80, row.host_us, row.timer = timing
        row.gb_s, row.x_eager, row.x_compile = total / timing.us / 1e3, ratio("torch"), ratio("compile")
        share, sweeps = ratio("copy"), task.sweeps(mode)
        row.copy_percent = None if share is None else 100 * share
        row.sweeps_percent = 100 * share * sweeps if share and sweeps and provider != "copy" else None
        peers = [timings[p].us for p in PEERS if p in timings]
        row.x_best = min(peers) / timing.us if peers and provider in NAMES else None
    return row


def overhead(device: str, seconds: float, threads: int) -> Iterator[Row]:
    """Host time of one module call at (1, 128), against torch.nn's module (and torch's activation after it)."""
    torch.set_num_threads(threads)
    x = torch.randn(1, 128, device=device, requires_grad=True)
    for activation in (None, "relu"):
        ours = nk.LayerNorm(128, activation=activation, device=device)
        eager = torch.nn.LayerNorm(128, device=device)
        theirs = torch.nn.Sequential(eager, torch.nn.ReLU()) if activation else eager
        for mode in ("fwd", "fwd+bwd"):
            calls = {"torch": [_burst(theirs, x, mode)], "ours": [_burst(ours, x, mode)]}
            times = measure(calls, "cpu", seconds)
            for name, t in times.items():
                op = "LayerNorm" + (f"+{activation}" if activation else "")
                row = Row(op, f"{mode} call", "1x128", "float32", name, threads)
                row.us, row.p20, row.p80 = (v / BURST for v in t[:3])
                row.host_us, row.timer, row.x_eager = row.us, "clock", times["torch"].us / t.us
                yield row


BURST = 50  # calls between two readings of the clock


def _burst(module: torch.nn.Module, x: torch.Tensor, mode: str):
    leaves, dy = [x, *module.parameters()], torch.randn_like(x)

    def forward():
        for _ in range(BURST):
            module(x)

    def both():
        for _ in range(BURST):
            torch.autograd.grad(module(x), leaves, dy)

    return forward if mode == "fwd" else both
