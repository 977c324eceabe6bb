"""Builds normkernels._C: the C++ kernels always, the CUDA kernels where torch is a CUDA build and its nvcc is there.
And normkernels._replay_<version of torch>, which calls the kernels without Python, for the torch at hand.

Install with ``pip install --no-build-isolation .``, so that torch is the one you have. What cannot be built is an error
that says what is missing; what the environment can say is in docs/install.md.
"""

import os
import re
import sys
from glob import glob
from sysconfig import get_platform

import setuptools

ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, ROOT)  # where pip does not look

from setup_checks import OLDEST, check, cuda, variant, version  # noqa: E402

STABLE_ABI = "0x020b000000000000"  # torch 2.11: one binary for it and every later torch
CSRC = os.path.join(ROOT, "csrc")  # ninja compiles from another folder
NO_BUILD = {"egg_info", "sdist", "dist_info", "--version", "--name", "clean"}  # commands that compile nothing


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
        cxx += ["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", *without_paths()]
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
    """torch's command; one at a time in a folder, whose objects the next one finds, and no stale binary in its way."""
    from torch.utils.cpp_extension import BuildExtension

    class OneAtATime(BuildExtension):
        def initialize_options(self) -> None:
            super().initialize_options()
            self.build_temp = os.path.join(ROOT, "build", f"temp.{get_platform()}")  # pip's own goes with each install

        def run(self) -> None:
            if others := ninjas(os.path.join(ROOT, "build")):
                way_on = f"wait for its ninja (process {others[0]}), or end it"
                sys.exit(f"\nnormkernels: another build runs in {ROOT}.\n  {way_on}.\n")
            for folder in ("", self.build_lib):  # of a tree built before: Python would take it before the new one
                for stale in glob(os.path.join(folder, "normkernels/_C.cpython-*.so")):
                    os.remove(stale)
            super().run()

    return OneAtATime


def build() -> dict:
    found: dict = {"cmdclass": {}}
    native = os.environ.get("NORMKERNELS_NATIVE") != "0"
    if os.path.exists("pyproject.toml"):  # a bare tree makes no wheel, with a setuptools of any version
        if version(setuptools.__version__) < OLDEST["setuptools"]:
            needed = "pip install 'setuptools>=77' wheel ninja, then pip install --no-build-isolation ."
            sys.exit(f"\nnormkernels: setuptools {setuptools.__version__} is too old.\n  {needed}\n")
        from setup_wheel import parts

        found = parts(variant() if native and "sdist" not in sys.argv else "")
    if not native or NO_BUILD & set(sys.argv):
        return found
    check()
    return found | {
        "ext_modules": [extension(), replays()],
        "cmdclass": found["cmdclass"] | {"build_ext": build_extensions()},
        "options": {"bdist_wheel": {"py_limited_api": "cp311"}},  # the replays are CPython 3.11's: later ones lack them
    }


if __name__ == "__main__":
    setuptools.setup(**build())
