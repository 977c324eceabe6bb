"""What an install says where something is missing; no row ends in success without what was asked for.

python tests/compiled/install.py
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from sdist import unpacked

NEW = ("setuptools>=77", "wheel")
NO_ISOLATION = ("--no-build-isolation", "--no-deps")


class Row(NamedTuple):
    """An environment: what is installed, what is done to it, and what must be said."""

    name: str
    packages: tuple[str, ...]
    said: str
    succeeds: bool = False
    native: bool = False
    torch: str | None = "2.13.0"  # a module of this version stands in for it, and an empty file for the kernels
    variables: Mapping[str, str] = MappingProxyType({})
    options: tuple[str, ...] = NO_ISOLATION


ROWS = (
    Row("old setuptools", ("setuptools==65.5.0", "wheel"), "setuptools 65.5.0 is too old"),
    Row("no torch", NEW, "torch is not there", torch=None),
    Row("old torch", NEW, "torch 2.10.0 is too old, 2.11 is needed", torch="2.10.0"),
    Row("no compiler", NEW, "no C++ compiler (nosuch-c++", variables={"CXX": "nosuch-c++"}),
    Row("isolated", NEW, "torch is not there", options=("--no-deps",)),
    Row("no ninja", NEW, "ninja is not there", True, True, options=(*NO_ISOLATION, "-v")),
    Row("no pybind11", (*NEW, "ninja"), "Successfully installed normkernels", True, True),
    Row("failing compiler", (*NEW, "ninja"), "error:", variables={"CXX": "false"}),
    Row("nvcc of another CUDA", NEW, "nvcc is of CUDA 11.8, torch of CUDA 13.0",
        variables={"NORMKERNELS_CUDA_ARCHS": "80", "STAND_IN_CUDA": "13.0"}),
    Row("no nvcc", NEW, "no nvcc",
        variables={"NORMKERNELS_CUDA_ARCHS": "80", "STAND_IN_CUDA": "13.0", "CUDA_HOME": "/nowhere"}),
    Row("no nvcc, CUDA not asked for", NEW, "CPU kernels only: no nvcc", True, True,
        variables={"STAND_IN_CUDA": "13.0", "CUDA_HOME": "/nowhere"}, options=(*NO_ISOLATION, "-v")),
    Row("CUDA asked of a CPU build", NEW, "torch is a CPU build",
        variables={"NORMKERNELS_CUDA_ARCHS": "80"}),
    Row("no such GPU", NEW, "ampere: no compute capability",
        variables={"NORMKERNELS_CUDA_ARCHS": "ampere"}),
    Row("without native kernels", NEW, "Successfully installed normkernels", True, torch=None,
        variables={"NORMKERNELS_NATIVE": "0"}),
)  # fmt: skip

STAND_IN = """
import os, shutil, sys, types
__version__ = "{version}"
version = types.SimpleNamespace(cuda=os.environ.get("STAND_IN_CUDA"))
extension = types.ModuleType("torch.utils.cpp_extension")
extension.get_cxx_compiler = lambda: os.environ.get("CXX", "false")
extension.is_ninja_available = lambda: shutil.which("ninja", path=os.path.dirname(sys.executable)) is not None
from setuptools import Extension
from setuptools.command.build_ext import build_ext as BuildExtension
extension.BuildExtension = BuildExtension
def CppExtension(name, sources, extra_compile_args=(), **more):
    return Extension(name, ["empty.cpp"], **more)
extension.CppExtension = extension.CUDAExtension = CppExtension
sys.modules["torch.utils"] = types.ModuleType("torch.utils")
sys.modules["torch.utils.cpp_extension"] = extension
"""

NVCC = """#!/bin/sh
case "$*" in
  *--version*) echo "Cuda compilation tools, release 11.8, V11.8.89" ;;
  *) echo "#$ TOP=$(dirname "$(dirname "$(readlink -f "$0")")")" >&2 ;;
esac
"""


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """Python of a virtual environment that has these and nothing else."""
    python = folder / re.sub("[>=]", "", "-".join(packages)) / "bin/python"
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
        )
    return python


def stand_ins(folder: Path, version: str | None) -> dict[str, str]:
    """Variables under which Python finds a module that calls itself torch, no pybind11, and the nvcc of CUDA 11.8."""
    nvcc, torch = folder / "cuda/bin/nvcc", folder / f"torch-{version}" / "torch/__init__.py"
    files = {nvcc: NVCC, torch: STAND_IN.format(version=version)}
    files |= {torch.parents[1] / "pybind11.py": "raise ImportError('pybind11 is not there')\n"}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    nvcc.chmod(0o755)
    return {"CUDA_HOME": str(folder / "cuda")} | ({"PYTHONPATH": str(torch.parents[1])} if version else {})


def source(folder: Path) -> None:
    """What a user would install from, a source distribution; and the empty file that is compiled."""
    unpacked(folder).rename(folder / "source")
    (folder / "source/empty.cpp").touch()


def native(python: Path, folder: Path) -> bool:
    """Whether what is installed has an extension."""
    code = "import importlib.util as u, pathlib as p; f = p.Path(u.find_spec('normkernels').origin).parent; "
    code += "raise SystemExit(not list(f.glob('_C.*')))"
    return subprocess.run([python, "-I", "-c", code], cwd=folder, capture_output=True).returncode == 0


def tried(row: Row, folder: Path) -> tuple[int, str, bool]:
    """(exit status, all that was printed, whether there is an extension then) of pip."""
    python = environment(folder, row.packages)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NORMKERNELS", "PYTHON", "CUDA", "CXX"))}
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *row.options, str(folder / "source")]
    variables = clean | stand_ins(folder, row.torch) | row.variables
    shutil.rmtree(folder / "source/build", ignore_errors=True)  # what the row before has compiled
    subprocess.run(
        [python, "-m", "pip", "uninstall", "--quiet", "--yes", "normkernels"], capture_output=True, env=clean
    )
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder)
    return done.returncode, done.stdout + done.stderr, native(python, folder)


def main() -> int:
    table, failed = Table(box=None, header_style="bold"), 0
    for name in ("environment", "exit status", "native", "said", ""):
        table.add_column(name)
    with tempfile.TemporaryDirectory() as folder:
        source(Path(folder))
        for row in ROWS:
            status, text, there = tried(row, Path(folder))
            right = row.said in text and (status == 0, there) == (row.succeeds, row.native)
            failed += not right
            line = next((t.strip() for t in text.splitlines() if row.said in t), text[-400:])
            table.add_row(row.name, str(status), "yes" if there else "no", line, "ok" if right else "WRONG")
    Console(width=150).print(table)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
