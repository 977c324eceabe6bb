"""Builds normkernels._C: the C++ kernels always, the CUDA kernels whenever torch is a CUDA build and nvcc is there.
And normkernels._replay_<version of torch>, which calls the kernels without Python, for the torch at hand.

Environment: NORMKERNELS_NATIVE=0 gives a pure-Python install; NORMKERNELS_NATIVE=1 makes a failed build an error (by
default the package is installed without its extension, and says so). NORMKERNELS_CUDA_ARCHS="80;90" chooses the GPUs;
none is needed to build. Install with ``pip install --no-build-isolation .`` so that torch is the one you have.
"""

import os
import re
import subprocess
import sys
from glob import glob

from setuptools import setup

STABLE_ABI = "0x020b000000000000"  # torch 2.11: one binary for it and every later torch
DEFAULT_ARCHS = "80;90;100"
CSRC = os.path.abspath("csrc")  # ninja compiles from another folder
NATIVE = os.environ.get("NORMKERNELS_NATIVE", "")


def toolkit() -> str | None:
    """The folder of the CUDA toolkit, from nvcc itself: what lies in PATH may be a script that calls another one."""
    nvcc = os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc") if os.environ.get("CUDA_HOME") else "nvcc"
    try:
        said = subprocess.run([nvcc, "--dryrun", "asked.cu"], capture_output=True, text=True).stderr
    except OSError:
        return None
    found = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    return os.path.realpath(found[1]) if found else None


def cuda_archs() -> list[str] | None:
    """The compute capabilities to build CUDA kernels for; None without a CUDA torch or without nvcc."""
    import torch

    home = toolkit()
    if torch.version.cuda is None or home is None:
        return None
    os.environ["CUDA_HOME"] = home  # which torch.utils.cpp_extension reads when it is imported
    return os.environ.get("NORMKERNELS_CUDA_ARCHS", DEFAULT_ARCHS).replace(",", ";").split(";")


def replays():
    """The replays, which no stable ABI covers: a binary for one minor version of torch, and named after it."""
    import torch
    from torch.utils.cpp_extension import CppExtension

    flags = ["/O2", "/std:c++20"] if sys.platform == "win32" else ["-O3", "-std=c++20", "-g0", "-fvisibility=hidden"]
    version = "_".join(torch.__version__.split(".")[:2])
    sources = sorted(glob("csrc/replay/*.cpp"))
    return CppExtension(f"normkernels._replay_{version}", sources, include_dirs=[CSRC], extra_compile_args=flags)


def extension():
    """The extension, from the same globs as CMakeLists.txt."""
    import pybind11
    import torch

    archs = cuda_archs()
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    kernels = glob("csrc/cpu/**/*.cpp", recursive=True) + (glob("csrc/cuda/**/*.cu", recursive=True) if archs else [])
    sources = sorted(glob("csrc/*.cpp") + kernels)
    defines = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}", f"-DNORMKERNELS_TORCH_VERSION={torch.__version__}"]
    cxx = ["-O3", "-std=c++20", "-g0", "-fvisibility=hidden", *defines]
    if sys.platform == "win32":
        cxx = ["/O2", "/std:c++20", "/openmp:experimental", *defines]
    else:
        cxx += ["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
    flags = {"cxx": cxx}
    if archs:
        cxx += ["-DNORMKERNELS_WITH_CUDA", f"-DNORMKERNELS_CUDA_ARCHS={'_'.join(archs)}"]
        flags["nvcc"] = ["-O3", "-std=c++20", *defines]
        flags["nvcc"] += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
        flags["nvcc"] += [f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]
    kind = CUDAExtension if archs else CppExtension
    return kind("normkernels._C", sources, include_dirs=[CSRC, pybind11.get_include()], extra_compile_args=flags)


def without(error: Exception) -> None:
    """Go on without the extension, unless it was asked for."""
    if NATIVE == "1":
        raise error
    sys.stderr.write(f"normkernels: installed without native kernels ({error}); NORMKERNELS_NATIVE=1 shows why\n")


def build() -> dict:
    if NATIVE == "0":
        return {}
    try:
        modules = [extension(), replays()]
        from torch.utils.cpp_extension import BuildExtension
    except ImportError as error:
        without(error)
        return {}

    class Build(BuildExtension):
        def build_extensions(self):
            try:
                super().build_extensions()
            except Exception as error:
                without(error)
                self.extensions.clear()

    return {"ext_modules": modules, "cmdclass": {"build_ext": Build}}


setup(**build())
