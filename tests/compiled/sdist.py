"""Whether the source distribution is the whole source: every file that git knows, and tests that run from it.

python tests/compiled/sdist.py          # the tests that ask for files of the tree
python tests/compiled/sdist.py --all    # the whole suite

Its tests run on the binaries that are built here: the sources are the same.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT: set[str] = set()  # of what git knows
WRITTEN = {"PKG-INFO", "setup.cfg"}  # by setuptools, which also adds its folder of metadata
TESTS = ("house", "imports", "place", "setup", "wheel", "stable_abi", "claims", "gpu_run", "example_data")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("NORMKERNELS", "PYTHON"))}


def unpacked(folder: Path) -> Path:
    """The tree of a source distribution that is built of this one."""
    done = subprocess.run([sys.executable, "-c", BUILD, folder], cwd=ROOT, env=clean(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def known() -> set[str]:
    """To git: what is committed, and what would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in names if (ROOT / name).is_file()}


def wrong(tree: Path) -> Iterator[str]:
    """What is missing, what nobody knows, and what has become another file."""
    found = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()}
    found = {name for name in found - WRITTEN if not name.startswith("normkernels.egg-info/")}
    wanted = known() - LEFT_OUT
    yield from (f"{name} is missing" for name in sorted(wanted - found))
    yield from (f"{name} is not known to git" for name in sorted(found - wanted))
    for name in sorted(wanted & found):
        a, b = ROOT / name, tree / name
        if a.read_bytes() != b.read_bytes() or os.access(a, os.X_OK) != os.access(b, os.X_OK):
            yield f"{name} is another file there"


def tested(tree: Path, everything: bool) -> int:
    for binary in (ROOT / "normkernels").glob("_*.so"):
        shutil.copy(binary, tree / "normkernels")
    tests = ["tests"] if everything else [f"tests/test_{name}.py" for name in TESTS]
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=tree, env=clean()).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole suite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = unpacked(Path(folder))
        lines = list(wrong(tree))
        sys.stdout.write("".join(f"{line}\n" for line in lines) or f"all {len(known())} files\n")
        return min(len(lines), 1) or tested(tree, arguments.all)


if __name__ == "__main__":
    sys.exit(main())
