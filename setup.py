"""Builds normkernels._C: the C++ kernels always, the CUDA kernels where torch is a CUDA build and its nvcc is there.
And normkernels._replay_<version of torch>, which calls the kernels without Python, for the torch at hand.

Install with ``pip install --no-build-isolation .``, so that torch is the one you have. What cannot be built is an error
that says what is missing; what the environment can say is in docs/install.md.
"""

import os
import re
import shutil
import subprocess
import sys
from glob import glob
from typing import NamedTuple

import setuptools

STABLE_ABI = "0x020b000000000000"  # torch 2.11: one binary for it and every later torch
OLDEST = {"torch": (2, 11), "setuptools": (77, 0)}
DEFAULT_ARCHS = "80;90;100"
ROOT = os.path.dirname(os.path.abspath(__file__))
CSRC = os.path.join(ROOT, "csrc")  # ninja compiles from another folder
NO_BUILD = {"egg_info", "sdist", "dist_info", "--version", "--name", "clean"}  # commands that compile nothing
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


def without_paths() -> list[str]:
    """No path of this machine in a binary: checks name their files, torch's headers theirs."""
    import torch

    return [f"-ffile-prefix-map={folder}=." for folder in (ROOT, os.path.dirname(torch.__file__))]


def replays():
    """The replays, which no stable ABI covers: a binary for one minor version of torch, and named after it."""
    import torch
    from torch.utils.cpp_extension import CppExtension

    flags = ["/O2", "/std:c++20"]
    if sys.platform != "win32":
        flags = ["-O3", "-std=c++20", "-g0", "-fvisibility=hidden", *without_paths()]
    name = "_".join(map(str, version(torch.__version__)))
    sources = sorted(glob("csrc/replay/*.cpp"))
    return CppExtension(f"normkernels._replay_{name}", sources, include_dirs=[CSRC], extra_compile_args=flags)


def extension():
    """The extension, from the same globs as CMakeLists.txt: on Python's stable ABI, for 3.11 and every later one."""
    import torch

    archs, why_not = cuda()
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    kernels = glob("csrc/c*/**/*.cpp", recursive=True) + (glob("csrc/cuda/**/*.cu", recursive=True) if archs else [])
    sources = sorted(glob("csrc/*.cpp") + kernels)
    defines = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}", f"-DNORMKERNELS_TORCH_VERSION={torch.__version__}"]
    cxx = ["-O3", "-std=c++20", "-g0", "-fvisibility=hidden", *defines]
    if sys.platform == "win32":
        cxx = ["/O2", "/std:c++20", "/openmp:experimental", *defines]
    else:
        cxx += ["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", *without_paths()]
    flags = {"cxx": cxx}
    if archs:
        cxx += ["-DNORMKERNELS_WITH_CUDA", f"-DNORMKERNELS_CUDA_ARCHS={'_'.join(archs)}"]
        flags["nvcc"] = ["-O3", "-std=c++20", *defines]
        flags["nvcc"] += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
        flags["nvcc"] += [f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]
    else:
        words = re.sub("[^A-Za-z0-9.]+", "_", why_not)  # as one: a space would not survive the way to the compiler
        cxx.append(f"-DNORMKERNELS_WITHOUT_CUDA={words}")
        sys.stderr.write(f"normkernels: CPU kernels only: {why_not}\n")
    kind = CUDAExtension if archs else CppExtension
    return kind("normkernels._C", sources, include_dirs=[CSRC], extra_compile_args=flags, py_limited_api=True)


def ninjas(folder: str) -> list[int]:
    """Processes of ninja that work in or below a folder: a build that was killed leaves its own running."""
    found = []
    for entry in glob("/proc/[0-9]*"):
        try:
            with open(f"{entry}/comm") as name:
                if name.read().strip() == "ninja" and f"{os.readlink(f'{entry}/cwd')}/".startswith(f"{folder}/"):
                    found.append(int(os.path.basename(entry)))
        except OSError:  # it has ended, or is another user's
            pass
    return found


def build_extensions() -> type:
    """torch's command; one build at a time in a folder, and none of what an earlier one left in the way of this one."""
    from torch.utils.cpp_extension import BuildExtension

    class OneAtATime(BuildExtension):
        def run(self) -> None:
            if others := ninjas(os.path.join(ROOT, "build")):
                way_on = f"wait for its ninja (process {others[0]}), or end it"
                sys.exit(f"\nnormkernels: another build runs in {ROOT}.\n  {way_on}.\n")
            for stale in glob("normkernels/_C.cpython-*.so"):  # which Python would take before the new one
                os.remove(stale)
            super().run()

    return OneAtATime


def build() -> dict:
    found: dict = {"cmdclass": {}}
    if os.path.exists("pyproject.toml"):  # a bare tree makes no wheel, with a setuptools of any version
        if version(setuptools.__version__) < OLDEST["setuptools"]:
            needed = "pip install 'setuptools>=77' wheel ninja, then pip install --no-build-isolation ."
            sys.exit(f"\nnormkernels: setuptools {setuptools.__version__} is too old.\n  {needed}\n")
        sys.path.insert(0, ROOT)  # where pip does not look
        from setup_wheel import parts

        found = parts()
    if os.environ.get("NORMKERNELS_NATIVE") == "0" or NO_BUILD & set(sys.argv):
        return found
    check()
    return found | {
        "ext_modules": [extension(), replays()],
        "cmdclass": found["cmdclass"] | {"build_ext": build_extensions()},
        "options": {"bdist_wheel": {"py_limited_api": "cp311"}},  # the replays are CPython 3.11's: later ones lack them
    }


if __name__ == "__main__":
    setuptools.setup(**build())
