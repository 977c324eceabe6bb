"""An LSTM with layer norm as one call and as a loop of cells: how far apart they are, and the time of a step."""

import time
from itertools import product
from statistics import median

import torch
from _common import console
from _rows import WIDTH, LoopLSTM
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table
from torch import nn

import normkernels as nk

SIZES = [(32, 64, 8), (4, 64, 8), (32, 256, 64), (1, 128, 256)]  # batch, width, steps


def agreement(backend: str | None, device: str) -> float:
    """How far layer and loop are apart in float64, at most, in outputs and gradients."""
    torch.manual_seed(0)
    layer, loop = nk.LayerNormLSTM(8, WIDTH, backend=backend), LoopLSTM(8, WIDTH)
    for module in (layer, loop):
        module.to(device, torch.float64)
    for parameter in layer.parameters():  # norms away from 1 and 0
        nn.init.normal_(parameter, 0.5, 0.3)
    pairs = loop.like(layer)
    x, dy = (torch.randn(12, 5, n, dtype=torch.float64, device=device) for n in (8, WIDTH))
    ours, theirs = layer(x)[0], loop(x)[0]
    for y in (ours, theirs):
        y.backward(dy)
    apart = [(ours - theirs).abs().max(), *((a.grad - b.grad).abs().max() for a, b in pairs.items())]
    return torch.stack(apart).max().item()


def step_times(batch: int, width: int, steps: int, repeats: int, backend: str | None, device: str) -> list[float]:
    """Median milliseconds, forward and backward, of torch.nn.LSTM, ours and the loop, which take turns."""
    numbers = 8 if width == WIDTH else width
    layers = [nn.LSTM(numbers, width), nk.LayerNormLSTM(numbers, width, backend=backend), LoopLSTM(numbers, width)]
    x, dy = (torch.randn(steps, batch, n, device=device) for n in (numbers, width))
    times: list[list[float]] = [[] for _ in layers]
    for repeat, (layer, found) in product(range(repeats + 1), zip(layers, times, strict=True)):
        layer.to(device).zero_grad()
        start = _clock(device)
        layer(x)[0].backward(dy)
        if repeat:  # the first one warms up
            found.append(_clock(device) - start)
    return [1e3 * median(found) for found in times]


def _clock(device: str) -> float:
    """On the CPU the time of this process alone: what else runs here does not count."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def report_times(repeats: int, backend: str | None, device: str) -> None:
    console.print(
        f"Forward and backward, ms: medians of {repeats} turns. plain: torch.nn.LSTM, ours: LayerNormLSTM,\n"
        "loop: a Python loop of cells with torch.nn.LayerNorm",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("batch", "width", "steps", "plain", "ours", "loop", "loop / ours", "ours / plain"):
        table.add_column(column, justify="right", no_wrap=True)
    for size in track(SIZES, "timing", console=console, transient=True):
        plain, ours, loop = step_times(*size, repeats, backend, device)
        times = (f"{t:.2f}" for t in (plain, ours, loop, loop / ours, ours / plain))
        table.add_row(*map(str, size), *times)
    console.print(table)
