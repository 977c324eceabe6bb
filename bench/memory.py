"""``python -m bench.memory``: what a training step of batch norm + skip + activation takes in memory, on the CPU.

Counted is every allocation and release of torch's CPU allocator, as its profiler reports them: results, gradients, what
autograd keeps, and temporaries inside eager's kernels and inside our autograd.Function alike. Not counted: what was
there before (x, skip, dy, parameters), and what C++ takes from malloc itself (a few numbers for each channel). The unit
is one tensor of x's size. ``kept`` is what is held between forward and backward, y included. y is let go before
backward, as a next layer would have done by then; the gradients of x, skip, weight and bias live until the end.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from itertools import accumulate, product

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler tells when it starts and stops

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import normkernels as nk

from .tables import console

ACTIVATIONS = {"relu": F.relu, "silu": F.silu}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def usage(f: Callable) -> list[int]:
    """Bytes in use beyond the start, after each allocation and release of f."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        f()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return list(accumulate((e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())), initial=0))


def step(block: Callable[[Tensor, Tensor], Tensor], leaves: list[Tensor], dy: Tensor) -> tuple[float, float, float]:
    """Tensors of x's size: the peak of forward, what is kept, the peak of backward. ``leaves`` begin with x, skip."""
    torch.autograd.grad(block(*leaves[:2]), leaves, dy)  # whatever is set up once
    held = []
    forward = usage(lambda: held.append(block(*leaves[:2])))
    edge = torch.autograd.graph.get_gradient_edge(held[0])
    release = usage(held.clear)
    backward = usage(lambda: held.extend(torch.autograd.grad(edge, leaves, dy)))
    kept = forward[-1]
    return max(forward) / dy.nbytes, kept / dy.nbytes, (kept + release[-1] + max(backward)) / dy.nbytes


def blocks(activation: str, channels: int) -> Iterator[tuple[str, Callable, torch.nn.Module]]:
    """The block as a user of torch writes it, the same in place where autograd allows it, and fused."""
    act, eager = ACTIVATIONS[activation], torch.nn.BatchNorm2d(channels)
    yield "eager", lambda x, skip: act(eager(x) + skip), eager
    if activation == "relu":
        yield "eager, in place", lambda x, skip: F.relu_(eager(x).add_(skip)), eager
    fused = nk.BatchNorm2d(channels, activation=activation)
    yield "fused", fused, fused


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="16x64x64x64")
    shape = [int(n) for n in parser.parse_args().shape.split("x")]
    table = Table(title=f"tensors of {shape} beyond x, skip and dy", title_justify="left", box=None)
    for name in ("activation", "layout", "block", "forward", "kept", "backward", "step", "% of eager", "kept, %"):
        table.add_column(name, justify="left" if name in ("activation", "layout", "block") else "right")
    for activation, layout in product(ACTIVATIONS, LAYOUTS):
        x, skip, dy = (torch.randn(shape).contiguous(memory_format=LAYOUTS[layout]) for _ in range(3))
        first = None
        for name, block, module in blocks(activation, shape[1]):
            leaves = [x.requires_grad_(), skip.requires_grad_(), *module.parameters()]
            forward, kept, backward = step(block, leaves, dy)
            found = max(forward, backward), kept
            first = first or found
            shares = (100 * a / b for a, b in zip(found, first, strict=True))
            numbers = (*(f"{v:.2f}" for v in (forward, kept, backward, found[0])), *(f"{v:.0f}" for v in shares))
            table.add_row(activation, layout, name, *numbers, style="bold" if name == "fused" else None)
        table.add_section()
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
