"""``python -m bench.regions``: how often a call shares its work among threads, forward and backward.

Every time costs a few microseconds for each thread that has nothing to do; one forward and one backward is the aim.
Counted by the native kernels themselves, with as many threads as torch has (two at least).
"""

import argparse
import sys
from collections.abc import Callable

import torch
from rich.table import Table
from torch import Tensor

import normkernels.functional as nf
from normkernels._backends import unusable

from .tables import console

IMAGES = [(4, 64, 14, 14), (32, 64, 14, 14), (32, 256, 28, 28), (32, 512, 7, 7), (1, 64, 56, 56)]
ROWS = [(256, 1024), (8192, 256), (4, 65536), (1, 1 << 20)]
OF_ROWS = {
    "layer_norm": lambda x, w, b: nf.layer_norm(x, w.shape, w, b),
    "rms_norm": lambda x, w, _: nf.rms_norm(x, w.shape, w),
}
OF_IMAGES = {
    "batch_norm": lambda x, w, b: nf.batch_norm(x, None, None, w, b, True),
    "group_norm": lambda x, w, b: nf.group_norm(x, 8, w, b),
    "instance_norm": lambda x, w, b: nf.instance_norm(x, weight=w, bias=b),
    "layer_norm_2d": lambda x, w, b: nf.layer_norm_2d(x, w, b),
}


def regions(op: Callable[..., Tensor], x: Tensor) -> tuple[int, int]:
    """Of forward and of backward."""
    n = x.shape[1]
    given = [t.requires_grad_() for t in (x.detach(), torch.ones(n), torch.zeros(n))]
    from normkernels._C import parallel_regions

    before = parallel_regions()
    y = op(*given)
    between = parallel_regions()
    torch.autograd.grad(y, given, torch.ones_like(y), allow_unused=True)
    return between - before, parallel_regions() - between


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.regions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    if missing := unusable("native", "rms_norm_fwd", "cpu"):
        parser.error(missing)
    torch.set_num_threads(max(2, torch.get_num_threads()))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("op", "shape", "layout", "forward", "backward"):
        table.add_column(name)
    cases = [(name, op, torch.randn(s)) for name, op in OF_ROWS.items() for s in ROWS]
    for name, op in OF_IMAGES.items():
        for image in map(torch.randn, IMAGES):
            cases += [(name, op, image), (name, op, image.to(memory_format=torch.channels_last))]
    for name, op, x in cases:
        layout = "" if x.is_contiguous() else "channels_last"
        table.add_row(name, "x".join(map(str, x.shape)), layout, *map(str, regions(op, x)))
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
