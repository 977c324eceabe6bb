"""The facts of a kernel's machine code for sm_90, which bench/model/compiled.csv keeps by the digest of its source."""

import csv
import importlib
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).with_name("compiled.csv")
ARCHITECTURE = 90


class Code(NamedTuple):
    """instructions: all of them; loop: those inside loops; first_load: where in its loop the next tile is asked for."""

    kernel: str
    digest: str
    registers: int
    spills: int
    shared_bytes: int
    instructions: int
    loop: int
    barriers: int
    loop_barriers: int
    first_load: float
    prefetches: int  # whether a loop waits for older loads while newer ones are under way


def known() -> dict[str, Code]:
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {row[1]: Code._make([*row[:2], *map(int, row[2:9]), float(row[9]), int(row[10])]) for row in rows}


def keep(codes: dict[str, Code]) -> None:
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Code._fields, *sorted(codes.values())])


def compiled(launch: Any, codes: dict[str, Code]) -> Code:
    """Of a launch that ``tests/compiled/triton.py`` specialised; compiled if it is not among ``codes``."""
    digest = launch._replace(dtype="").digest(ARCHITECTURE)
    if digest not in codes:
        codes[digest] = _compile(launch, digest)
    return codes[digest]


def _compile(launch: Any, digest: str) -> Code:
    table: Any = importlib.import_module("tests.compiled.triton")
    triton: Any = importlib.import_module("triton")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", ARCHITECTURE, 32)
    made = triton.compile(table.source(launch), target=target, options={"num_warps": launch.num_warps})
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = _output(tools / "cuobjdump", "--dump-resource-usage", file.name)
        sass = _output(tools / "nvdisasm", "-c", file.name)
    registers, stack = (int(re.findall(rf"{name}:(\d+)", said)[0]) for name in ("REG", "STACK"))
    return Code(launch.kernel, digest, registers, stack, made.metadata.shared, *counts(sass))


def _output(*command) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def counts(sass: str) -> tuple[int, int, int, int, float, int]:
    """The last six fields of ``Code``, of nvdisasm's text: a loop lies between a label and a branch back to it."""
    code, labels = [], {}
    for line in sass.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif instruction := re.search(r"/\*[0-9a-f]{4,5}\*/\s+(.*?)\s*;", line):
            code.append(instruction[1])
    loops = []
    for at, text in enumerate(code):
        to = re.search(r"BRA.*?(\.L_x_\d+)", text)
        if to and at - labels.get(to[1], at) > 3:
            loops.append((labels[to[1]], at + 1))
    inside = {i for start, end in loops for i in range(start, end)}
    longest = max(loops, key=lambda loop: loop[1] - loop[0], default=(0, 0))
    body = code[slice(*longest)]
    loads = [i for i, text in enumerate(body) if "LDG" in text]
    # the wait of a loop with one buffer is for all loads: DEPBAR.LE SB0, 0x0
    waits = [text for text in body if "DEPBAR.LE SB0" in text]
    prefetches = int(bool(waits) and not any(re.search(r"SB0, 0x0\b", text) for text in waits))
    barriers = {i for i, text in enumerate(code) if "BAR.SYNC" in text}
    first = round(loads[0] / len(body), 3) if loads else 0.0
    return len(code), len(inside), len(barriers - inside), len(barriers & inside), first, prefetches
