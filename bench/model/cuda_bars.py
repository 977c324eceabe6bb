"""Of CUDA's misses of a bar what keeps each: ``python -m bench.model.cuda_bars``, with ``--write`` into limits.csv."""

import sys
from collections.abc import Iterator

from . import cuda_channels, cuda_long, cuda_rows
from .bars import Miss, miss, told
from .times import H100, H200

WAYS = {"forward": cuda_rows.forward, "backward": cuda_long.backward}


def rows() -> Iterator[Miss | None]:
    kernels = cuda_rows.compile_rows()
    for op in ("layer_norm", "rms_norm"):
        for shape in cuda_rows.shapes(op):
            M, N = map(int, shape.split("x"))
            for i, (way, launches) in enumerate(WAYS.items()):
                a, b = (launches(str(op == "layer_norm").lower(), M, N, device, kernels) for device in (H100, H200))
                yield miss("CUDA", (op, shape, way), (a, b), (2 + i) * 2 * M * N)


def channels() -> Iterator[Miss | None]:
    """Of planes that clusters hold."""
    kernels = cuda_channels.compile_channels()
    for op, shape, way, blocks, *_ in cuda_channels.committed():
        x = cuda_channels.shape_of(op, shape)
        made = cuda_channels.held(way, x, blocks, kernels)
        yield miss("CUDA", (op, shape, way), (made, made), (3 if way == "backward" else 2) * x.size)


if __name__ == "__main__":
    sys.stdout.write("predicted, not measured\n")
    found = [one for every in (rows(), channels()) for one in every if one]
    sys.exit(told("CUDA", found, "--write" in sys.argv))
