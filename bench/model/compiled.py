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
    """instructions: all of them; loop: those inside loops; first_load: where in its loop
    the next tile is asked for, counted back from its use."""

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
    prefetches: int  # tiles under way beyond the one that a loop waits for
    meetings: int = 0  # barriers of a cluster, outside loops
    loop_meetings: int = 0


def known() -> dict[str, Code]:
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {row[1]: Code._make([*row[:2], *map(int, row[2:9]), float(row[9]), *map(int, row[10:])]) for row in rows}


def keep(codes: dict[str, Code]) -> None:
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Code._fields, *sorted(codes.values())])


def compiled(launch: Any, codes: dict[str, Code]) -> Code:
    """Of a launch that ``tests/compiled/launches.py`` specialised; compiled if it is not among ``codes``."""
    digest = launch._replace(dtype="").digest(ARCHITECTURE)
    if digest not in codes:
        codes[digest] = _compile(launch, digest)
    return codes[digest]


def _compile(launch: Any, digest: str) -> Code:
    table: Any = importlib.import_module("tests.compiled.launches")
    triton: Any = importlib.import_module("triton")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", ARCHITECTURE, 32)
    made = triton.compile(table.source(launch), target=target, options=launch.options)
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = output(tools / "cuobjdump", "--dump-resource-usage", file.name)
        sass = output(tools / "nvdisasm", "-c", file.name)
    registers, stack = (int(re.findall(rf"{name}:(\d+)", said)[0]) for name in ("REG", "STACK"))
    return Code(launch.kernel, digest, registers, stack, made.metadata.shared, *counts(sass))


def output(*command) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def listing(sass: str) -> tuple[list[str], dict[str, int]]:
    """The instructions of nvdisasm's text, and before which of them each label stands."""
    code, labels = [], {}
    for line in sass.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif instruction := re.search(r"/\*[0-9a-f]{4,5}\*/\s+(.*?)\s*;", line):
            code.append(instruction[1])
    return code, labels


def counts(sass: str) -> tuple[int, int, int, int, float, int, int, int]:
    """The last eight fields of ``Code``, of nvdisasm's text: a loop lies between a label and a branch back to it."""
    code, labels = listing(sass)
    loops = []
    for at, text in enumerate(code):
        to = re.search(r"BRA.*?(\.L_x_\d+)", text)
        if to and at - labels.get(to[1], at) > 3:
            loops.append((labels[to[1]], at + 1))
    inside = {i for start, end in loops for i in range(start, end)}
    longest = max(loops, key=lambda loop: loop[1] - loop[0], default=(0, 0))
    body = code[slice(*longest)]
    # a wait is for all but so many groups of loads; each tile is some groups, one where a loop commits none
    left = [int(found[1], 16) for text in body if (found := re.search(r"DEPBAR\.LE SB0, 0x(\w+)", text))]
    prefetches = min(left, default=0) // max(1, sum("LDGDEPBAR" in text for text in body))
    barriers = {i for i, text in enumerate(code) if "BAR.SYNC" in text}
    first = round(1 - _lead(body), 3) if any("LDG" in text for text in body) else 0.0
    if sum("LDG." in text for text in body) > sum("LDGSTS" in text for text in body):
        prefetches = 0  # of the tiles, into registers: the loop waits where it uses them
    meetings = {i for i, text in enumerate(code) if "UCGABAR_WAIT" in text}
    waits = (len(found) for every in (barriers, meetings) for found in (every - inside, every & inside))
    out, loop, *met = waits
    return len(code), len(inside), out, loop, first, prefetches, *met


def _lead(body: list[str]) -> float:
    """Which share of a loop lies between a request for values and their use.

    What goes to shared memory is used when the loop begins again, what goes to a register where that is named next.
    """
    shared = [i for i, text in enumerate(body) if "LDGSTS" in text]
    plain = {i: found[1] for i, text in enumerate(body) if (found := re.search(r"\bLDG\.\S+ (R\d+)", text))}
    if len(shared) >= len(plain):
        return 1 - shared[0] / len(body)
    leads = []
    for i, register in plain.items():
        order = [*range(i + 1, len(body)), *range(i)]
        uses = (n for n, j in enumerate(order, 1) if re.search(rf"\b{register}\b", body[j]))
        leads.append(next(uses, len(body)) / len(body))
    return sorted(leads)[len(leads) // 2]
