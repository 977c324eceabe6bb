"""Compile every Triton kernel as every launcher can launch it, for GPUs that need not be here, and read what came out.

The launchers run on meta tensors while the launches are recorded, so that nothing is compiled but what they choose.
Registers, spilt bytes and shared memory are read from the machine code, the width of the accesses to global memory from
the PTX. ``docs/compiled/triton.csv`` is the table of the last ``--write``; without it, exit status 1 on a spill, a
narrower access, or a row that is missing here or there. A launch is compiled again when its kernel, a file that this
imports, the launch or Triton changed since its row was written; --all compiles every one.
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in place of this folder, where `import triton` would find this file

import triton  # noqa: E402
from rich.progress import track  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402

from tests.compiled.cases import launches  # noqa: E402
from tests.compiled.launches import Launch, source  # noqa: E402

TABLE = ROOT / "docs" / "compiled" / "triton.csv"
KEYS = ("kernel", "config", "dtype", "arch")
FIELDS = (*KEYS, "registers", "spills", "shared_bytes", "load_bits", "store_bits", "digest")
ARCHITECTURES = (90, 80, 100)


def width(ptx: str, access: str) -> int:
    """Bits of the accesses ``ld`` or ``st`` to global memory that move the most bytes."""
    bits = Counter()
    for vector, size in re.findall(rf"\b{access}\.global[\w:.]*?(?:\.v(\d))?\.[bfus](\d+)\b", ptx):
        bits[int(vector or 1) * int(size)] += int(vector or 1) * int(size)
    if access == "ld":  # of a pipelined loop
        bits.update({128: 128 * len(re.findall(r"\bcp\.async\.cg\.shared\.global", ptx))})
    return max(bits, key=bits.__getitem__, default=0)


def compile_one(launch: Launch, arch: int) -> dict[str, str]:
    """The row of the table for one launch on one architecture."""
    made = triton.compile(source(launch), target=GPUTarget("cuda", arch, 32), options=launch.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = dict(
            re.findall(r"(\w+):(\d+)", subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        )
    row = {
        **dict(zip(KEYS, launch.key(arch), strict=True)),
        "registers": usage["REG"],
        "spills": int(usage["STACK"]) + int(usage["LOCAL"]),
        "shared_bytes": made.metadata.shared,
        "load_bits": width(made.asm["ptx"], "ld"),
        "store_bits": width(made.asm["ptx"], "st"),
        "digest": launch.digest(arch),
    }
    return {k: str(v) for k, v in row.items()}


def complaints(rows: list[dict[str, str]], committed: list[dict[str, str]]) -> list[str]:
    """Spills, and what is worse than, or missing from, the committed table."""
    before = {tuple(row[k] for k in KEYS): row for row in committed}
    found = []
    for row in rows:
        key = tuple(row[k] for k in KEYS)
        name = ", ".join(key)
        if row["spills"] != "0":
            found.append(f"{name}: spills {row['spills']} bytes")
        if key not in before:
            found.append(f"{name}: not in the table")
            continue
        for field in ("load_bits", "store_bits"):
            if int(row[field]) < int(before[key][field]):
                found.append(f"{name}: {field} {row[field]}, was {before[key][field]}")
    here = {tuple(row[k] for k in KEYS) for row in rows}
    return found + [f"{', '.join(key)}: in the table, but no longer launched" for key in before if key not in here]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("--all", action="store_true", help="compile what did not change too")
    parser.add_argument("--jobs", type=int, default=2, help="processes that compile (default: %(default)s)")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, help="compute capabilities, e.g. 90")
    args = parser.parse_args()
    committed = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    known = {} if args.all else {(*(row[k] for k in KEYS), row.get("digest")): row for row in committed}
    work, rows = [], []
    for arch in args.arch:
        for launch in launches(arch):
            row = known.get((*launch.key(arch), launch.digest(arch)))
            if row:
                rows.append(row)
            else:
                work.append((launch, arch))
    same = len(rows)
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(args.jobs, initializer=set_cache, initargs=(cache,)) as pool,
    ):
        futures = [pool.submit(compile_one, *item) for item in work]
        rows += [f.result() for f in track(as_completed(futures), "compiling", len(futures))]
    names = {f"sm_{arch}" for arch in args.arch}
    before = rows if args.write else [row for row in committed if row["arch"] in names]
    if args.write:
        rows = sorted(rows, key=lambda row: [natural(row[k]) for k in KEYS])
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows + [row for row in committed if row["arch"] not in names])
    found = complaints(rows, before)
    sys.stdout.writelines(line + "\n" for line in found)
    sys.stdout.write(f"{len(work)} compilations, {same} launches as in the table, {len(found)} complaints\n")
    return 1 if found else 0


def natural(text: str) -> list:
    """A sort key in which 8x128 comes before 16x128."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def set_cache(folder: str) -> None:
    triton.knobs.cache.dir = folder


if __name__ == "__main__":
    sys.exit(main())
