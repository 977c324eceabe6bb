"""The backward of rows in CUDA, predicted by the same model: what nvcc makes of it, and shares of a copy's speed.

``python -m bench.model.cuda`` compiles the kernels of bfloat16 rows that a block holds, x and parameters packed, no
activation, and says of each shape how many blocks a multiprocessor holds, what a thread has asked for before a row is
reduced, and the predicted share of the kernel alone, without the sum over blocks that follows it.
"""

import argparse
import csv
import importlib
import math
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.shapes import SHAPES

from .compiled import ARCHITECTURE, Code, listing, output
from .times import H100, H200, Work, copy, resident, seconds

ROOT, TABLE = Path(__file__).resolve().parents[2], Path(__file__).with_name("cuda.csv")
CHUNKS, BLOCK, MOST, PACK = (2, 4), 256, 512, 8  # of csrc/cuda/rows: packs of a thread, threads, values of a pack
MOST_CENTERED = 384  # threads of a row with a bias and most packs
KERNEL = "rows_backward_kernel<__nv_bfloat16, {center}, true, 0, false, {chunks}>"


class Row(NamedTuple):
    """Of one shape. ahead: 16-byte requests of a thread for the next row, before the barrier of this one."""

    op: str
    shape: str
    registers: int
    blocks: int
    ahead: int
    barriers: int
    instructions: int
    h100: float
    h200: float


def compile_kernels(names: dict[str, str], header: str = "cuda/rows/backward.cuh") -> dict[str, tuple[int, str]]:
    """Registers and machine code by name; names: of kernels, and of what each takes."""
    nvcc = importlib.import_module("tests.ptx.build").nvcc()
    if nvcc is None:
        sys.exit("nvcc not found: the CUDA kernels cannot be compiled")
    tools = Path(importlib.import_module("triton").__file__ or "").parent / "backends/nvidia/bin"
    made = "".join(f"template __global__ void {name}({given});\n" for name, given in names.items())
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "rows.cu"), Path(folder, "rows.cubin")
        source.write_text(f'#include "{header}"\nnamespace normkernels::cuda {{\n{made}}}\n')
        flags = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", f"-arch=sm_{ARCHITECTURE}", f"-I{ROOT / 'csrc'}"]
        output(nvcc, *flags, "-cubin", "-o", cubin, source)
        usage = output(tools / "cuobjdump", "--dump-resource-usage", cubin)
        sass = output(tools / "nvdisasm", "-c", cubin)
    registers = dict(re.findall(r"Function (\w+):\s+REG:(\d+)", usage))
    sections = re.split(r"(?m)^\.text\.(\w+):", sass)[1:]
    found = {}
    for mangled, text in zip(sections[::2], sections[1::2], strict=True):
        name = output("c++filt", mangled).split("(")[0].removeprefix("void ").replace("normkernels::cuda::", "")
        found[name.strip()] = int(registers[mangled]), text
    return found


def loop_over_rows(sass: str) -> tuple[list[str], list[str]]:
    """All instructions, and those of the longest loop that ends in a branch under a condition.

    Others lead back from the paths that divergent warps take, which lie behind the kernel.
    """
    code, labels = listing(sass)
    back = [
        (labels.get(m[1], i), i + 1) for i, text in enumerate(code) if (m := re.match(r"@.*BRA `\((\.L_x_\d+)", text))
    ]
    start, end = max(back, key=lambda loop: loop[1] - loop[0], default=(0, 0))
    return code, code[start:end]


def facts(name: str, registers: int, sass: str, shared: int) -> tuple[Code, int]:
    """As the model takes them, and how many requests are under way when the row is reduced."""
    code, body = loop_over_rows(sass)
    asked = [i for i, text in enumerate(body) if "LDGSTS" in text]
    barriers = sum("BAR.SYNC" in text for text in body)
    outside = sum("BAR.SYNC" in text for text in code) - barriers
    first = round(asked[0] / len(body), 3) if asked else 1.0  # else what it asks for it waits for
    before = next((i for i, text in enumerate(body) if "BAR.SYNC" in text), len(body))
    inside, meetings = (sum("UCGABAR_WAIT" in text for text in lines) for lines in (body, code))
    met = meetings - inside, inside
    made = Code(name, "", registers, 0, shared, len(code), len(body), outside, barriers, first, 0, *met)
    return made, sum(i < before for i in asked)


def predict(op: str, shape: str, kernels: dict[str, tuple[int, str]]) -> Row | None:
    M, N = map(int, shape.split("x"))
    packs, center = N // PACK, op == "layer_norm"
    chunks = CHUNKS[packs > MOST * CHUNKS[0]]
    if N % PACK or packs > (MOST_CENTERED if center else MOST) * CHUNKS[1]:
        return None
    needed = math.ceil(packs / chunks)
    width = 32 * math.ceil(needed / 32) if needed > 32 else 2 ** math.ceil(math.log2(needed))
    rows = 1 if width > 32 else BLOCK // width
    warps, name = width * rows // 32, KERNEL.format(center=str(center).lower(), chunks=chunks)
    registers, sass = kernels[name]
    declared = 32 * BLOCK + 2 * (1 + center) * 32 * 4  # sums by column, and of warps
    asks = 2 * chunks * 16 * width * rows if "LDGSTS" in sass else 0
    code, ahead = facts(name, registers, sass, declared + asks)
    programs = min(H100.multiprocessors * resident(code, warps), math.ceil(M / rows))
    work = Work(programs, 4.0 * M * N, 2.0 * M * N, math.ceil(M / rows / programs))
    shares = [round(copy(device, 6 * M * N) / seconds(device, code, warps, work), 2) for device in (H100, H200)]
    return Row(op, shape, registers, resident(code, warps), ahead, code.loop_barriers, code.loop, *shares)


def committed() -> list[Row]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [Row._make([*row[:2], *map(int, row[2:7]), *map(float, row[7:])]) for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.model.cuda", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    args = parser.parse_args()
    names = [KERNEL.format(center=c, chunks=n) for c in ("true", "false") for n in CHUNKS]
    kernels = compile_kernels(dict.fromkeys(names, "RowsBackward<__nv_bfloat16>"))
    shapes: Any = [(op, shape) for op in ("layer_norm", "rms_norm") for shape in SHAPES["cuda"][op]]
    found = [row for op, shape in shapes if (row := predict(op, shape, kernels))]
    sys.stdout.write("predicted, not measured: share of a copy's speed on H100/H200\n")
    sys.stdout.write("".join(f"{row}\n" for row in found))
    if args.write:
        with TABLE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Row._fields, *found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
