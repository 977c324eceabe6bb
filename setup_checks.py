"""What a build needs and what it can give, found out before anything is compiled."""

import os
import re
import shutil
import subprocess
import sys
from glob import glob
from typing import NamedTuple

OLDEST = {"torch": (2, 11), "setuptools": (77, 0)}
DEFAULT_ARCHS = "80;90;100"
WAYS_ON = "or NORMKERNELS_NATIVE=0 for an install without native kernels (Triton and the reference stay)"


class Cuda(NamedTuple):
    """What the CUDA kernels are compiled for, and with; or why they are not."""

    archs: list[str]
    why_not: str = ""


def stop(missing: str, way_on: str) -> None:
    sys.exit(f"\nnormkernels: {missing}.\n  {way_on},\n  {WAYS_ON}.\n")


def version(of: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", of)[:2])


def check() -> None:
    """Everything that a build needs, before anything is compiled."""
    again = "pip install --no-build-isolation ."
    try:
        import torch
    except ImportError:
        stop("torch is not there to build for (pip hides it unless told not to)", f"pip install torch, then {again}")
    if version(torch.__version__) < OLDEST["torch"]:
        stop(f"torch {torch.__version__} is too old, 2.11 is needed", f"pip install 'torch>=2.11', then {again}")
    from torch.utils.cpp_extension import get_cxx_compiler, is_ninja_available

    compiler = get_cxx_compiler().split()[0]
    if shutil.which(compiler) is None:
        stop(f"no C++ compiler ({compiler} is not in PATH; CXX names another)", f"install g++ or clang, then {again}")
    if not is_ninja_available():
        sys.stderr.write("normkernels: ninja is not there: one file is compiled after the other\n")


def toolkit() -> str | None:
    """The folder of the CUDA toolkit, from nvcc itself: what lies in PATH may be a script that calls another one."""
    nvcc = os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc") if os.environ.get("CUDA_HOME") else "nvcc"
    try:
        said = subprocess.run([nvcc, "--dryrun", "asked.cu"], capture_output=True, text=True).stderr
    except OSError:
        return None
    found = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    return os.path.realpath(found[1]) if found else None


def wanted_archs() -> list[str]:
    """80, 90a, ... from NORMKERNELS_CUDA_ARCHS, else TORCH_CUDA_ARCH_LIST, which also says 8.0 and 9.0+PTX."""
    names = os.environ.get("NORMKERNELS_CUDA_ARCHS")
    names = os.environ.get("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHS) if names is None else names
    found = [a.split("+")[0].replace(".", "") for a in re.split(r"[;, ]+", names.strip()) if a]
    wrong = [a for a in found if not re.fullmatch(r"\d{2,3}[af]?", a)]
    if wrong:
        sys.exit(f"\nnormkernels: {', '.join(wrong)}: no compute capability such as 80, 8.0 or 90a.\n")
    return found


def cuda() -> Cuda:
    """Found out before anything is compiled. What was asked for by name and cannot be is an error."""
    import torch

    archs, home = wanted_archs(), toolkit()
    if torch.version.cuda is None:
        found = Cuda([], "torch is a CPU build")
    elif not archs:
        found = Cuda([], "NORMKERNELS_CUDA_ARCHS is empty")
    elif home is None:
        found = Cuda([], "no nvcc (in PATH, or in CUDA_HOME/bin)")
    else:
        found = usable(home, torch.version.cuda, archs)
    if found.archs and home:
        os.environ["CUDA_HOME"] = home  # which torch.utils.cpp_extension reads when it is imported
    elif os.environ.get("NORMKERNELS_CUDA_ARCHS"):
        stop(f"CUDA kernels cannot be built: {found.why_not}", "unset NORMKERNELS_CUDA_ARCHS for CPU kernels alone")
    return found


def usable(home: str, torch_cuda: str, archs: list[str]) -> Cuda:
    """Whether this toolkit fits torch, and which of the architectures it knows."""
    nvcc = os.path.join(home, "bin", "nvcc")
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", said)
    if release is None or release[1] != torch_cuda.split(".")[0]:
        return Cuda([], f"nvcc is of CUDA {'.'.join(release.groups()) if release else '?'}, torch of CUDA {torch_cuda}")
    if not glob(os.path.join(home, "lib*", "**", "libcudart.so*"), recursive=True):
        return Cuda([], f"no libcudart in {home}")
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout.split()
    left = [a for a in archs if f"sm_{a.rstrip('af')}" not in known]
    if left:
        sys.stderr.write(f"normkernels: this nvcc does not know {', '.join(left)}: left out\n")
    archs = [a for a in archs if a not in left]
    return Cuda(archs, "" if archs else "this nvcc knows none of the architectures")


def variant() -> str:
    """Of a wheel with CUDA kernels: its local version, so that no name is that of the one without, nor of another CUDA.

    No index for everyone takes a local version.
    """
    try:
        import torch
    except ImportError:
        return ""  # the build itself will say so
    return f"+cu{torch.version.cuda.partition('.')[0]}" if cuda().archs else ""
