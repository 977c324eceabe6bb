"""Calls of rows in CUDA, predicted by the same model: ``python -m bench.model.cuda_rows``.

Of bfloat16 rows that 128-bit accesses divide, parameters in float32, no activation: as Triton's in ``predicted.csv``.
"""

import csv
import math
import sys
from pathlib import Path

from bench.shapes import SHAPES

from . import cuda_long
from .__main__ import ODD, Predicted
from .cuda import PACK
from .cuda_code import Kernels, compile_kernels
from .tables import told
from .times import H100, H200, Device, Launched, Work, copy, taken

TABLE = Path(__file__).with_name("cuda_rows.csv")
THREADS, FEW, MOST = 128, 2, 512  # of csrc/cuda/rows/forward.cuh: threads, packs of a thread each, threads of a row
ALONE = "rows_forward_kernel<__nv_bfloat16, {center}, true, 0, false, false, {chunks}>"


def forward(center: str, M: int, N: int, device: Device, kernels: Kernels) -> list[Launched]:
    packs = N // PACK
    if packs > MOST * cuda_long.PACKS:
        return cuda_long.forward(center, M, N, device, kernels)
    chunks = 1 if packs <= FEW else cuda_long.PACKS
    needed = math.ceil(packs / chunks)
    width = 32 * math.ceil(needed / 32) if needed > 32 else 1 << (needed - 1).bit_length()
    rows = THREADS // width if needed <= 32 else 1
    code = cuda_long.code(kernels, ALONE.format(center=center, chunks=chunks), 256)
    work = Work(math.ceil(M / rows), 2.0 * M * N, 2.0 * M * N, statistics=rows)
    return [Launched(code, work, width * rows // 32)]


def predict(op: str, shape: str, kernels: Kernels) -> Predicted:
    M, N = map(int, shape.split("x"))
    center, shares, launches = str(op == "layer_norm").lower(), [], []
    for i, way in enumerate((forward, cuda_long.backward)):
        for device in (H100, H200):
            made = way(center, M, N, device, kernels)
            shares.append(round(copy(device, (2 + i) * 2 * M * N) / taken(device, made), 2))
        launches.append(str(len(made)))
    return Predicted(op, shape, *shares, "+".join(launches))


def shapes(op: str) -> list[str]:
    return [s for s in [*SHAPES["cuda"][op], *ODD] if int(s.split("x")[1]) % PACK == 0]


def compile_rows() -> Kernels:
    names = [ALONE.format(center=c, chunks=n) for c in ("true", "false") for n in (1, cuda_long.PACKS)]
    made = compile_kernels(dict.fromkeys(names, "RowsForward<__nv_bfloat16>"), "cuda/rows/forward.cuh")
    return made | cuda_long.compile_long()


def committed() -> dict[tuple[str, ...], Predicted]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {(r[0], r[1]): Predicted(r[0], r[1], *map(float, r[2:6]), r[6]) for r in rows}


def main() -> int:
    kernels = compile_rows()
    found = [predict(op, shape, kernels) for op in ("layer_norm", "rms_norm") for shape in shapes(op)]
    return told("share of a copy's speed on H100/H200", found, TABLE)


if __name__ == "__main__":
    sys.exit(main())
