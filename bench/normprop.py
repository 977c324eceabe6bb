"""``python -m bench.normprop``: what NormProp adds to a layer's product, and what the layer keeps.

The product is torch's own, so it is left out: timed is the epilogue, y = (f(u + bias) - c2) / c1 in place of u, and its
backward with the gradient of bias, beside what a user of torch would write and a copy of the same bytes (2 tensors, 3
backward). ``kept`` is what a layer (a 1x1 convolution) holds between forward and backward, in tensors of its output's
size.
"""

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from rich.table import Table

import normkernels as nk
from normkernels._backends import NAMES
from normkernels.cases._channels import last
from normkernels.cases._rows import activate
from normkernels.ops._channel_layouts import lies_last, view
from normkernels.ops._normprop import epilogue
from normkernels.ops._normprop_recipe import normprop_bwd, normprop_fwd

from . import machine
from .__main__ import DTYPES, keep_memory_mapped
from .comparisons import parser
from .memory import usage
from .providers import available
from .stream import write_csv
from .tables import console
from .timing import measure, own_stream

COLUMNS = ("pass", "activation", "shape", "dtype", "provider", "us", "p20", "p80", "% of copy", "x eager", "kept")
SHAPES = ["32x192x32x32", "32x192x32x32:nhwc"]


def image(shape: str, dtype: torch.dtype, device: str) -> torch.Tensor:
    t = torch.randn(tuple(map(int, shape.split(":")[0].split("x"))), dtype=dtype, device=device)
    return last(t) if shape.endswith(":nhwc") else t


def ours(name: str, u: torch.Tensor, dy: torch.Tensor, bias: torch.Tensor, backend: str) -> dict[str, Callable]:
    """Both passes through the ops, on buffers that are there."""
    e, at_last = epilogue(name, 0.01, u.dtype), lies_last(u)
    x, y, g, dbias = view(u, at_last, True), torch.empty_like(u), view(dy, at_last, True), torch.empty_like(bias)
    to = view(y if not e.from_output else u, at_last, True)
    numbers, du = (*e[:4], *e.kinks, *e.bounds), torch.empty_like(x)

    def forward():
        normprop_fwd(x, bias, None, to, *numbers, at_last, backend)

    def backward():
        kept = to if e.from_output else x
        normprop_bwd(g, kept, bias, None, du, dbias, None, *e[:4], *e.bounds, e.from_output, at_last, backend)

    return {"fwd": forward, "bwd": backward}


def eager(name: str, u: torch.Tensor, dy: torch.Tensor) -> dict[str, Callable]:
    """As a user of torch writes it; the product adds the bias, but its gradient is a sum of its own."""
    c1, c2, _ = nk.activation_moments(name)
    z = u.clone().requires_grad_()
    y = (activate(z, name, 0.01) - c2) / c1

    def backward():
        (du,) = torch.autograd.grad(y, z, dy, retain_graph=True)
        return du, du.sum((0, *range(2, du.dim())))

    return {"fwd": lambda: (activate(u, name, 0.01) - c2) / c1, "bwd": backward}


def copies(u: torch.Tensor) -> dict[str, Callable]:
    """Of two tensors' bytes, and of three."""
    source = torch.rand(3 * u.nbytes // 8, device=u.device)
    target = torch.empty_like(source)
    n = len(source) * 2 // 3
    return {"fwd": lambda: target[:n].copy_(source[:n]), "bwd": lambda: target.copy_(source)}


def kept(name: str, u: torch.Tensor) -> float:
    """Tensors of the output's size that a layer holds between forward and backward, the output included."""
    layer = nk.NormPropConv2d(u.shape[1], u.shape[1], 1, activation=name, device=u.device, dtype=u.dtype)
    x, held = u.clone().requires_grad_(), []
    layer(x)
    return usage(lambda: held.append(layer(x)))[-1] / u.nbytes


def compare(name: str, shape: str, dtype: torch.dtype, device: str, backends: list[str], seconds: float) -> list[dict]:
    u, dy = image(shape, dtype, device), image(shape, dtype, device)
    bias = torch.randn(u.shape[1], device=device)
    found = {backend: ours(name, u.clone(), dy, bias, backend) for backend in backends}
    found |= {"torch": eager(name, u, dy), "copy": copies(u)}
    rows = []
    for way in ("fwd", "bwd"):
        timings = measure({k: [calls[way]] for k, calls in found.items()}, device, seconds)
        for provider, t in timings.items():
            share, faster = 100 * timings["copy"].us / t.us, timings["torch"].us / t.us
            holds = kept(name, u) if provider in NAMES and way == "fwd" and device == "cpu" else None
            values = way, name, shape, str(dtype)[6:], provider, t.us, t.p20, t.p80, share, faster, holds
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def main() -> int:
    keep_memory_mapped()
    arguments = parser("normprop", __doc__)
    add = arguments.add_argument
    add("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    add("--activation", nargs="+", default=["relu", "leaky_relu", "gelu"])
    add("--shape", nargs="+", default=SHAPES)
    add("--threads", type=int, default=1, help="of the CPU")
    add("--seconds", type=float, default=0.5, help="of timing for each provider")
    add("--csv", type=Path, metavar="FILE")
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    out, about = console(), machine.describe(args.device, [args.threads], machine.copy_gb_s(args.device))
    out.print("# " + machine.line(about), highlight=False, soft_wrap=True)
    backends, rows = [name for name in available("normprop", args.device) if name in NAMES], []
    with own_stream(args.device):
        for dtype, shape, name in product(args.dtype, args.shape, args.activation):
            rows += compare(name, shape, getattr(torch, dtype), args.device, backends, args.seconds)
    table = Table(*COLUMNS, box=None)
    for row in rows:
        table.add_row(*("" if v is None else f"{v:.2f}" if isinstance(v, float) else v for v in row.values()))
    out.print(table)
    if args.csv:
        write_csv(args.csv, rows, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
