"""What the oldest and the newest supported versions take: Triton's front end each launch, torch's headers each source.

Triton is installed beside the environment, for itself. Of torch only the headers are needed: the wheel for macOS has
the same ones and is a tenth of the size. The C++ sources pass the compiler's checks, the CUDA sources those of nvcc's
front end; nothing is built. ``requirements-dev.txt`` pins what lies between, with which everything else runs.

``docs/compiled/versions.csv`` names what passed when it was last written with --write. What is as it was then is not
compiled again, and a version is downloaded only when something is left to compile with it; --all compiles everything.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from digests import ROOT, digest, read, write

TABLE = ROOT / "docs/compiled/versions.csv"
KEPT = ROOT / ".venv" / "versions"
FRONT_END = ROOT / "tests/compiled/front_end.py"
TRITON = ("3.6.0", "3.9.0")
TORCH = ("2.11.0", "2.15.0")
MAC = ["--python-version", "3.12", "--platform", "macosx_11_0_arm64", "--platform", "macosx_14_0_arm64"]
LANGUAGE = ["-std=c++20", "-w", f"-I{ROOT / 'csrc'}"]
DEFINES = [*LANGUAGE, "-DTORCH_TARGET_VERSION=0x020b000000000000", "-DNORMKERNELS_TORCH_VERSION=any"]

Row = tuple[str, str, str]  # a kernel or a source, the version, and the digest of what passed


def pip(*arguments: str) -> None:
    """Quietly, and whatever version this machine holds back."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env=os.environ | {"PIP_CONSTRAINT": os.devnull}, stderr=subprocess.DEVNULL)


def launches() -> list[Row]:
    """Every kernel on either Triton."""
    command = [sys.executable, str(FRONT_END), "--digests", *TRITON]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return [(kernel, f"triton {v}", digest) for v in TRITON for kernel, digest in told[v].items()]


def front_end(version: str, kernels: list[str]) -> set[str]:
    """The kernels that Triton refuses; all of them where one is, for they share the files that they lie in."""
    folder = KEPT / f"triton-{version}"
    if not (folder / "triton").exists():
        pip("install", "--no-deps", "--target", str(folder), f"triton=={version}")
    command = [sys.executable, str(FRONT_END), "--kernels", *kernels]
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "TRITON_DEFAULT_FP_FUSION": "1"}  # 3.9 warns where it is not set
    return set(kernels) if subprocess.run(command, env=environment).returncode else set()


def sources() -> list[Row]:
    """Every source on either torch; those for nvcc only where it is."""
    found = [*ROOT.glob("csrc/**/*.cpp")]
    found += ROOT.glob("csrc/cuda/**/*.cu") if shutil.which("nvcc") else []
    script = Path(__file__).read_text()
    return [(str(p.relative_to(ROOT)), f"torch {v}", digest(p, f"{v} {script}")) for v in TORCH for p in sorted(found)]


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


def checking(source: str, include: Path) -> list[str]:
    """What checks a source against these headers."""
    if source.endswith(".cu"):
        nvcc = ["nvcc", "-arch=sm_90", "-c", "-o", os.devnull, "-fdevice-syntax-only", "-Xcompiler", "-fsyntax-only"]
        return [*nvcc, *DEFINES, "--expt-relaxed-constexpr", f"-I{include}", str(ROOT / source)]
    before = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}", f"-I{include}"]
    if source.startswith("csrc/replay/"):
        unstable = [f"-I{include}/torch/csrc/api/include", "-DTORCH_EXTENSION_NAME=any"]
        return ["c++", "-fsyntax-only", *LANGUAGE, *before, *unstable, str(ROOT / source)]
    return ["c++", "-fsyntax-only", *DEFINES, *before, str(ROOT / source)]


def compiles(version: str, names: list[str]) -> set[str]:
    """The sources that do not compile; the compiler's first lines about them are told."""
    include = headers(version)

    def tried(source: str) -> subprocess.CompletedProcess:
        return subprocess.run(checking(source, include), capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(names, pool.map(tried, names), strict=True))
    bad = {source for source, d in done.items() if d.returncode}
    for source in sorted(bad):
        sys.stdout.write("\n".join([source, *done[source].stderr.splitlines()[:4], ""]))
    sys.stdout.write(f"torch {version}: {len(bad)} of {len(done)} sources do not compile against its headers\n")
    return bad


def failing(rows: Iterable[Row]) -> set[Row]:
    """Those that do not pass, version by version."""
    by_version: dict[str, list[Row]] = {}
    for row in rows:
        by_version.setdefault(row[1], []).append(row)
    bad = set()
    for version, group in by_version.items():
        of, number = version.split()
        names = {"triton": front_end, "torch": compiles}[of](number, [name for name, *_ in group])
        bad |= {row for row in group if row[0] in names}
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table of what passed")
    parser.add_argument("--all", action="store_true", help="compile what did not change too")
    args = parser.parse_args()
    if args.write and not shutil.which("nvcc"):
        parser.error("--write needs nvcc: the table names the CUDA sources too")
    KEPT.mkdir(parents=True, exist_ok=True)
    known = set() if args.all else {tuple(row) for row in read(TABLE)}
    rows = launches() + sources()
    new = [row for row in rows if row not in known]
    bad = failing(new)
    if args.write:
        write(TABLE, [("what", "version", "digest"), *sorted(set(rows) - bad)])
    cuda = "" if shutil.which("nvcc") else "; no nvcc, so CUDA was left out"
    sys.stdout.write(f"{len(rows) - len(new)} of {len(rows)} are as in the table, {len(bad)} do not pass{cuda}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
