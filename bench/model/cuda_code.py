"""What nvcc makes of a CUDA kernel for sm_90, as one call runs it.

The instructions are those of a kernel whose arguments are known (``GIVEN``): float32 parameters that are there, and no
other tensors. So branches that such a call does not take count nothing, nor does the function behind the kernel that
divides what is near the ends of the range of floats. Its registers are the kernel's own.
"""

import importlib
import re
import tempfile
from pathlib import Path

from .compiled import ARCHITECTURE, Code, listing, output

ROOT = Path(__file__).resolve().parents[2]
Kernels = dict[str, tuple[int, str]]  # registers and machine code by name

AFFINE = "p.affine.weight.is_float = p.affine.bias.is_float = true, p.affine.offset = 0;"
AFFINE += "__builtin_assume(p.affine.weight.data != nullptr && p.affine.bias.data != nullptr);"
WANTED = "p.{0}dweight_is_float = p.{0}dbias_is_float = true;"
WANTED += "__builtin_assume(p.{0}dweight != nullptr && p.{0}dbias != nullptr);"
GIVEN = {
    "RowsForward": f"p.residual = nullptr; {AFFINE}",
    "RowsBackward": f"p.dsummed = nullptr; {AFFINE}",
    "ChannelsForward": f"p.skip = nullptr, p.gated = false; {AFFINE}",
    "ChannelsBackward": f"p.skip = nullptr, p.dskip = nullptr, p.gated = false; {AFFINE} {WANTED.format('sums.')}",
    "ChannelMeans": f"p.weight.is_float = true; {WANTED.format('sums.')}",
    "LineSums": WANTED.format(""),
}
# the headers' kernels are functions, and kernels of their own call them
INLINED = """#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>
#undef __global__
#undef __launch_bounds__
#define __global__ __device__ __forceinline__
#define __launch_bounds__(...)
#include "{header}"
#undef __global__
#define __global__ __attribute__((global))
"""


def compile_kernels(names: dict[str, str], header: str = "cuda/rows/backward.cuh") -> Kernels:
    """names: of kernels, and of what each takes."""
    templates = "".join(f"template __global__ void {name}({given});\n" for name, given in names.items())
    tools = Path(importlib.import_module("triton").__file__ or "").parent / "backends/nvidia/bin"
    with tempfile.TemporaryDirectory() as folder:
        cubin = _compile(folder, f'#include "{header}"\nnamespace normkernels::cuda {{\n{templates}}}\n')
        usage = dict(re.findall(r"Function (\w+):\s+REG:(\d+)", output(tools / "cuobjdump", "-res-usage", cubin)))
        registers = {_plain(mangled): int(found) for mangled, found in usage.items()}
        made = "".join(
            f"__global__ void __maxnreg__({registers[name]}) call_{i}(const {given} given) "
            f"{{ {given} p = given; {GIVEN[given.split('<')[0]]} {name}(p); }}\n"
            for i, (name, given) in enumerate(names.items())
        )
        cubin = _compile(folder, f"{INLINED.format(header=header)}namespace normkernels::cuda {{\n{made}}}\n")
        sections = re.split(r"(?m)^\.text\.\w*call_(\d+)\w*:", output(tools / "nvdisasm", "-c", cubin))[1:]
    sass = dict(zip(map(int, sections[::2]), sections[1::2], strict=True))
    return {name: (registers[name], sass[i]) for i, name in enumerate(names)}


def _compile(folder: str, text: str) -> Path:
    nvcc = importlib.import_module("tests.ptx.build").nvcc()
    if nvcc is None:
        raise SystemExit("nvcc not found: the CUDA kernels cannot be compiled")
    source, cubin = Path(folder, "kernels.cu"), Path(folder, "kernels.cubin")
    source.write_text(text)
    flags = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", f"-arch=sm_{ARCHITECTURE}", f"-I{ROOT / 'csrc'}"]
    output(nvcc, *flags, "-cubin", "-o", cubin, source)
    return cubin


def _plain(mangled: str) -> str:
    return output("c++filt", mangled).split("(")[0].removeprefix("void ").replace("normkernels::cuda::", "").strip()


def loop_over_rows(sass: str) -> tuple[list[str], list[str]]:
    """All instructions, and those of the longest loop that ends in a branch under a condition.

    Others lead back from the paths that divergent warps take, which lie behind the kernel.
    """
    code, labels = listing(sass.partition("\n$__internal")[0])
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
