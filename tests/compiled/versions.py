"""What the oldest and the newest supported versions take: Triton's front end each launch, torch's headers each source.

Triton is installed beside the environment, for itself. Of torch only the headers are needed: the wheel for macOS has
the same ones and is a tenth of the size. The C++ sources pass the compiler's checks, the CUDA sources those of nvcc's
front end; nothing is built. ``requirements-dev.txt`` pins what lies between, with which everything else runs.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".venv" / "versions"
TRITON = ("3.6.0", "3.9.0")
TORCH = ("2.11.0", "2.15.0")
MAC = ["--python-version", "3.12", "--platform", "macosx_11_0_arm64", "--platform", "macosx_14_0_arm64"]
LANGUAGE = ["-std=c++20", "-w", f"-I{ROOT / 'csrc'}"]
DEFINES = [*LANGUAGE, "-DTORCH_TARGET_VERSION=0x020b000000000000", "-DNORMKERNELS_TORCH_VERSION=any"]


def pip(*arguments: str) -> None:
    """Quietly, and whatever version this machine holds back."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env=os.environ | {"PIP_CONSTRAINT": os.devnull}, stderr=subprocess.DEVNULL)


def front_end(version: str) -> int:
    folder = KEPT / f"triton-{version}"
    if not (folder / "triton").exists():
        pip("install", "--no-deps", "--target", str(folder), f"triton=={version}")
    path = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, str(ROOT / "tests/compiled/front_end.py")]
    environment = os.environ | {"PYTHONPATH": path, "TRITON_DEFAULT_FP_FUSION": "1"}  # 3.9 warns where it is not set
    return subprocess.run(command, env=environment).returncode


def headers(version: str) -> Path:
    """The include folder of that torch."""
    folder = KEPT / f"torch-{version}"
    if not folder.exists():
        pip("download", "--no-deps", "--only-binary=:all:", *MAC, "-d", str(KEPT), f"torch=={version}")
        (wheel,) = KEPT.glob(f"torch-{version}-*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder, [name for name in file.namelist() if name.startswith("torch/include/")])
        wheel.unlink()
    return folder / "torch" / "include"


def compiles(version: str) -> int:
    """1 if a source does not; with the compiler's first lines about it."""
    include = headers(version)
    before = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}", f"-I{include}"]
    commands = [
        ["c++", "-fsyntax-only", *DEFINES, *before, str(source)]
        for source in [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/c*/**/*.cpp")]
    ]
    unstable = [*before, f"-I{include}/torch/csrc/api/include", "-DTORCH_EXTENSION_NAME=any"]
    commands += [
        ["c++", "-fsyntax-only", *LANGUAGE, *unstable, str(source)] for source in ROOT.glob("csrc/replay/*.cpp")
    ]
    nvcc = ["nvcc", "-arch=sm_90", "-c", "-o", os.devnull, "-fdevice-syntax-only", "-Xcompiler", "-fsyntax-only"]
    if shutil.which("nvcc"):
        nvcc += [*DEFINES, "--expt-relaxed-constexpr", f"-I{include}"]
        commands += [[*nvcc, str(source)] for source in ROOT.glob("csrc/cuda/**/*.cu")]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda command: subprocess.run(command, capture_output=True, text=True), commands))
    bad = [d for d in done if d.returncode]
    for d in bad:
        sys.stdout.write("\n".join([d.args[-1], *d.stderr.splitlines()[:4], ""]))
    cuda = "" if shutil.which("nvcc") else "; no nvcc, so CUDA was left out"
    sys.stdout.write(f"torch {version}: {len(bad)} of {len(done)} sources do not compile against its headers{cuda}\n")
    return 1 if bad else 0


def main() -> int:
    KEPT.mkdir(parents=True, exist_ok=True)
    return max([front_end(v) for v in TRITON] + [compiles(v) for v in TORCH])


if __name__ == "__main__":
    sys.exit(main())
