"""Compiles every CUDA kernel for sm_80, sm_90 and sm_100, and checks what can be known without a GPU.

Exit status 1, naming the kernel, when it spills, has a stack frame, does not move packs in 128-bit accesses, or takes
so many more registers than docs/compiled/cuda.csv says that fewer warps fit a multiprocessor. Needs nvcc; without it,
it says so and succeeds. A source is compiled again when it, a header that it includes, the flags, nvcc or torch changed
since the table was written; --all compiles every one.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from digests import ROOT, digest, read, write

TABLE = ROOT / "docs/compiled/cuda.csv"
SOURCES = ROOT / "docs/compiled/cuda_sources.csv"  # what each source was when the table was written
ARCHS = ("80", "90", "100")
CUDA = ROOT / "csrc/cuda"
FLAGS = (
    "-O3 -std=c++20 --expt-relaxed-constexpr -DTORCH_TARGET_VERSION=0x020b000000000000 -D__CUDA_NO_HALF_OPERATORS__ "
    "-D__CUDA_NO_HALF_CONVERSIONS__ -D__CUDA_NO_BFLOAT16_CONVERSIONS__ -D__CUDA_NO_HALF2_OPERATORS__"
).split()
# kernels whose template argument PACKED is true, and those that are nothing else
PACKED = re.compile(
    r"((rows|channels|streaming|normprop)_\w+<[^,]+, \w+, true|strided_rows_\w+<[^,]+, true"
    r"|filters_\w+<[^,]+, [^,]+, \w+, true|layer_norm_(rnn|gru|lstm)_\w+<[^,]+, true"
    r"|(channels_resident|filters_project)_)"
)


class Kernel(NamedTuple):
    """One compiled kernel: a row of the table. Bits: of its widest access to global memory, 0 where it has none."""

    source: str
    kernel: str
    arch: str
    registers: int
    shared: int
    stack: int
    spills: int
    load_bits: int
    store_bits: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.source, self.kernel, self.arch

    @property
    def warps(self) -> int:
        """How many warps the registers of a multiprocessor hold; they are given out eight per thread at a time."""
        return min(64, 65536 // (32 * 8 * -(-self.registers // 8)))


def find(tool: str) -> str | None:
    """The tool from $CUDA_HOME, the path, or (cuobjdump) Triton's wheel."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or ""
    if home and os.path.exists(os.path.join(home, "bin", tool)):
        return os.path.join(home, "bin", tool)
    if shutil.which(tool):
        return shutil.which(tool)
    bundled = sorted(Path(sys.prefix).glob(f"lib/python*/site-packages/triton/backends/nvidia/bin/{tool}"))
    return str(bundled[0]) if bundled else None


def named(source: Path) -> str:
    """``channels/forward.cu``: what the tables call it."""
    return source.relative_to(CUDA).as_posix()


def short(name: str) -> str:
    """``rows_fwd_kernel<float, true, true, false, 4>`` of a demangled signature."""
    return name.split("(")[0].removeprefix("void ").replace("normkernels::cuda::", "").strip()


def widest(sass: str) -> dict[str, tuple[int, int]]:
    """Mangled name -> bits of the widest global load and store."""
    bits = {}
    for function in sass.split("Function : ")[1:]:
        name = function.split("\n", 1)[0].strip()
        accesses = {"LDG": [0], "STG": [0]}
        for kind, suffix in re.findall(r"\b(LDG|STG)\.([\w.]+)", function):
            width = re.search(r"\b(128|64|U16|S16|U8|S8|16|8)\b", suffix)
            accesses[kind].append(int(width[1].lstrip("US")) if width else 32)
        bits[name] = max(accesses["LDG"]), max(accesses["STG"])
    return bits


def compile_one(nvcc: str, cuobjdump: str | None, source: Path, arch: str, includes: list[str]) -> list[Kernel]:
    """Compile one source for one architecture and read what ptxas and the machine code say."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/{source.stem}.cubin"
        command = [nvcc, *FLAGS, f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin", "-o", cubin, str(source), *includes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=540)
        if done.returncode:
            sys.exit(f"{named(source)} does not compile for sm_{arch}:\n{done.stderr}")
        dump = [cuobjdump, "-sass", cubin]
        sass = subprocess.run(dump, capture_output=True, text=True, check=True).stdout if cuobjdump else ""
    bits = widest(sass)
    kernels = []
    for block in re.split(r"Compiling entry function ", done.stderr)[1:]:
        mangled = re.match(r"'(\w+)'", block)[1]
        name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout

        def number(pattern: str, block: str = block) -> int:
            found = re.search(pattern, block)
            return int(found[1]) if found else 0

        kernels.append(
            Kernel(
                named(source),
                short(name),
                arch,
                registers=number(r"Used (\d+) registers"),
                shared=number(r"(\d+) bytes smem"),
                stack=number(r"(\d+) bytes stack frame"),
                spills=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
                load_bits=bits.get(mangled, (0, 0))[0],
                store_bits=bits.get(mangled, (0, 0))[1],
            )
        )
    return kernels


def problems(kernels: list[Kernel], committed: dict[tuple[str, str, str], Kernel], widths: bool) -> list[str]:
    """What is wrong, one sentence per kernel."""
    found = []
    for k in kernels:
        name, before = f"{k.source} sm_{k.arch} {k.kernel}", committed.get(k.key)
        if k.spills:
            found.append(f"{name}: spills {k.spills} bytes")
        if k.stack:
            found.append(f"{name}: has a stack frame of {k.stack} bytes")
        if widths and PACKED.match(k.kernel) and 0 < k.load_bits < 128:
            found.append(f"{name}: loads {k.load_bits} bits at a time, not 128")
        if before is None:
            found.append(f"{name}: not in {TABLE.relative_to(ROOT)}; look at it, then --write")
            continue
        if k.warps < before.warps:
            found.append(f"{name}: {before.registers} -> {k.registers} registers, {before.warps} -> {k.warps} warps")
        if widths and k.store_bits < before.store_bits:
            found.append(f"{name}: stores {k.store_bits} bits at a time, not {before.store_bits}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table that later runs are compared with")
    parser.add_argument("--all", action="store_true", help="compile what did not change too")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time (default 2)")
    args = parser.parse_args()
    nvcc, cuobjdump = find("nvcc"), find("cuobjdump")
    if nvcc is None:
        sys.stdout.write("nvcc not found: the CUDA kernels were not compiled\n")
        return 0
    import torch
    from torch.utils.cpp_extension import include_paths

    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    tools = f"{version} {torch.__version__.split('+')[0]} {FLAGS} {ARCHS}"
    sources = sorted(CUDA.glob("**/*.cu"))
    digests = {named(source): digest(source, tools) for source in sources}
    before = {} if args.all else dict(read(SOURCES))
    changed = [source for source in sources if before.get(named(source)) != digests[named(source)]]
    includes = [f"-I{path}" for path in (ROOT / "csrc", *include_paths())]
    jobs = [(source, arch) for source in changed for arch in ARCHS]
    with ThreadPoolExecutor(args.jobs) as pool:
        compiled = pool.map(lambda job: compile_one(nvcc, cuobjdump, *job, includes), jobs)
        kernels = [kernel for part in compiled for kernel in part]
    table = [Kernel(source, kernel, arch, *map(int, numbers)) for source, kernel, arch, *numbers in read(TABLE)]
    if args.write:
        kept = [k for k in table if k.source in digests and k.source not in {named(source) for source in changed}]
        table = sorted([*kept, *kernels], key=lambda k: (k.source, k.kernel, int(k.arch)))
        write(TABLE, [Kernel._fields, *table])
        write(SOURCES, [("source", "digest"), *sorted(digests.items())])
    committed = {row.key: row for row in table}
    found = problems(kernels, committed, widths=cuobjdump is not None)
    widths = "" if cuobjdump else "; no cuobjdump, so access widths were not looked at"
    same = f"{len(sources) - len(changed)} of {len(sources)} sources are as when the table was written"
    lines = [*found, f"{same}; {len(kernels)} compiled kernels, {len(found)} problems{widths}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
