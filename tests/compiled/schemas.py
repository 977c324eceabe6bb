"""Writes csrc/schemas.cpp: what the ops in normkernels/ops say of their arguments, for native ops of the same names.

Without --write it says whether the file is stale, and exits with 1 if so.
"""

import argparse
import sys
from pathlib import Path

import torch

import normkernels  # noqa: F401  # registers the ops

WIDTH = 120
FILE = Path(__file__).resolve().parents[2] / "csrc/schemas.cpp"
HEAD = """// The schemas of the native ops, which are those of normkernels/ops without the backend: written by
// `python tests/compiled/schemas.py --write`, not by hand.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
"""


def native_schemas() -> list[str]:
    """The schema of every op that a backend answers."""
    schemas = [s for s in torch._C._jit_get_all_schemas() if s.name.startswith("normkernels::")]
    kernels = [s for s in schemas if s.arguments and s.arguments[-1].name == "backend"]
    return sorted(str(s).removeprefix("normkernels::").replace(", str? backend)", ")") for s in kernels)


def definition(schema: str) -> str:
    """Of one op, broken between arguments, and as clang-format leaves it."""
    whole = f'  m.def("{schema}");'
    if len(whole) <= WIDTH:
        return whole
    lines = [""]
    for argument in schema.split(", "):
        if len(f'      "{lines[-1]}, {argument}, "') > WIDTH:
            lines.append("")
        lines[-1] += argument + ", "
    lines = [f'      "{line}"' for line in lines]
    return "  m.def(\n" + "\n".join(lines).removesuffix(', "') + '");'


def text() -> str:
    return HEAD + "\n".join(definition(schema) for schema in native_schemas()) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    if parser.parse_args().write:
        FILE.write_text(text())
    stale = FILE.read_text() != text()
    sys.stdout.write(f"{len(native_schemas())} schemas; csrc/schemas.cpp is {'stale' if stale else 'as they are'}\n")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
