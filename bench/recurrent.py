"""``python -m bench.recurrent``: a training step of a recurrent layer with a norm, forward and backward.

Beside it what would be used instead: torch.nn's layer without a norm, and a Python loop of cells with torch's norms,
which is how a recurrent layer is given one today. Shapes are T x B x H, steps, batch and units, with as many inputs as
units. ``x torch`` is the time as a multiple of torch.nn's layer, ``x loop`` how many times faster than the loop.
"""

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import nn

import normkernels as nk
from normkernels.cases import OPS

from . import machine
from .__main__ import DTYPES, keep_memory_mapped
from .comparisons import parser
from .providers import available
from .stream import write_csv
from .tables import console
from .timing import measure, own_stream

COLUMNS = ("layer", "shape", "dtype", "provider", "us", "p20", "p80", "x torch", "x loop")
LAYERS = {
    "layer_norm_lstm": (nk.LayerNormLSTM, nn.LSTM),
    "layer_norm_gru": (nk.LayerNormGRU, nn.GRU),
    "layer_norm_rnn": (nk.LayerNormRNN, nn.RNN),
    "batch_norm_lstm": (nk.BatchNormLSTM, nn.LSTM),
    "batch_norm_rnn": (nk.BatchNormRNN, nn.RNN),
}
SHAPES = ["64x32x256", "256x1x128"]  # a batch of sequences, and a stream


def loop(stem: str, layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The loop of torch over cells with the parameters of our layer."""
    twin, batch = OPS[stem].torch, stem.startswith("batch")
    p = {name.removesuffix("_l0"): t for name, t in layer.named_parameters()}
    options = {f"cell_{k}": p[f"norm_{k}_cell"] for k in ("weight", "bias") if f"norm_{k}_cell" in p}
    options |= {"training": True} if batch else {}

    def term(x: torch.Tensor) -> torch.Tensor:
        of_input = F.linear(x, p["weight_ih"])
        if "norm_weight" in p:  # of the sum
            return of_input
        parameters = p["norm_weight_ih"], p["bias_ih"]
        if batch:
            return F.batch_norm(of_input, None, None, *parameters, training=True)
        return F.layer_norm(of_input, of_input.shape[-1:], *parameters)

    def call(x: torch.Tensor) -> torch.Tensor:
        terms = torch.stack([term(of_step) for of_step in x])
        if "norm_weight" in p:
            own = {"weight": p["norm_weight"], "bias": p["bias_ih"] + p["bias_hh"]}
        else:
            own = {"weight": p["norm_weight_hh"], "bias": p["bias_hh"]}
        return twin(input=terms, weight_hh=p["weight_hh"], **own, **options)[0]

    return call


def step(function: Callable, x: torch.Tensor, dy: torch.Tensor, parameters: list[nn.Parameter]) -> Callable[[], object]:
    def call():
        y = function(x)
        return torch.autograd.grad(y[0] if isinstance(y, tuple) else y, parameters, dy, allow_unused=True)

    return call


def compare(stem: str, shape: str, dtype: torch.dtype, device: str, seconds: float) -> list[dict]:
    steps, batch, hidden = map(int, shape.split("x"))
    made = {"device": device, "dtype": dtype}
    x, dy = (torch.randn(steps, batch, hidden, **made) for _ in range(2))
    ours, theirs = (layer(hidden, hidden, **made) for layer in LAYERS[stem])
    found: dict[str, Callable] = {}
    for backend in (name for name in available(stem, device) if name in ("triton", "native")):
        layer = type(ours)(hidden, hidden, backend=backend, **made)
        found[backend] = step(layer, x, dy, list(layer.parameters()))
    found["loop"] = step(loop(stem, ours), x, dy, list(ours.parameters()))
    found["torch"] = step(theirs, x, dy, list(theirs.parameters()))
    timings = measure({name: [call] for name, call in found.items()}, device, seconds)
    rows = []
    for provider, t in timings.items():
        ratios = t.us / timings["torch"].us, timings["loop"].us / t.us
        values = stem, shape, str(dtype)[6:], provider, t.us, t.p20, t.p80, *ratios
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def main() -> int:
    keep_memory_mapped()
    arguments = parser("recurrent", __doc__)
    add = arguments.add_argument
    add("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    add("--layer", nargs="+", choices=LAYERS, default=list(LAYERS))
    add("--shape", nargs="+", default=SHAPES, help="T x B x H")
    add("--threads", type=int, default=1, help="of the CPU")
    add("--seconds", type=float, default=2.0, help="of timing for each provider")
    add("--csv", type=Path, metavar="FILE")
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    out, about = console(), machine.describe(args.device, [args.threads], machine.copy_gb_s(args.device))
    out.print("# " + machine.line(about), highlight=False, soft_wrap=True)
    rows = []
    with own_stream(args.device):
        for dtype, shape, stem in product(args.dtype, args.shape, args.layer):
            if stem.startswith("batch") and "x1x" in shape:
                continue  # one row has no batch statistics
            rows += compare(stem, shape, getattr(torch, dtype), args.device, args.seconds)
            if args.csv:
                write_csv(args.csv, rows, about)
    table = Table(*COLUMNS, box=None)
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else v for v in row.values()))
    out.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
