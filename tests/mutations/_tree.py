"""A copy of the working tree in which lines are broken, built and tested."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mutations import ROOT, Mutation

COPIED = ("normkernels", "bench", "tests", "csrc", "setup.py", "setup_checks.py", "setup_wheel.py", "pyproject.toml",
          "README.md", "LICENSE")  # fmt: skip


class Tree:
    """Only files that differ are copied into the folder: what was built there stays, and is built on."""

    def __init__(self, folder: Path, native: bool, jobs: int):
        self.folder, self.jobs = folder, jobs
        wanted = {p.relative_to(ROOT) for name in COPIED for p in files(ROOT / name)}
        for path in wanted:
            copy(ROOT / path, folder / path)
        for path in {p for name in COPIED for p in files(folder / name)}:
            if path.relative_to(folder) not in wanted:
                path.unlink()
        if native and (said := self._build()):
            raise RuntimeError(said)
        for library in () if native else (ROOT / "normkernels").glob("*.so"):
            copy(library, folder / "normkernels" / library.name)

    def outcome(self, mutation: Mutation) -> str:
        """killed, survived, or stale: the line is not there (any more) exactly once."""
        spots = mutation.spots(self.folder)
        if len(spots) != 1:
            return "stale"
        path, match = spots[0]
        text, before = path.read_text(), path.stat()
        if mutation.native:
            self._keep()
        try:
            path.write_text(text[: match.start()] + mutation.new + text[match.end() :])
            return "no build" if mutation.native and self._build() else self.run(mutation.tests)
        finally:
            path.write_text(text)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            if mutation.native:
                self._restore()

    def run(self, tests: str) -> str:
        environment = {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        command = f"{sys.executable} -m pytest -x -q {tests}"
        done = subprocess.run(command, cwd=self.folder, capture_output=True, env=os.environ | environment, shell=True)
        crashed = done.returncode >= 128  # which tells too
        return "killed" if crashed else {0: "survived", 1: "killed"}.get(done.returncode, "no tests")

    def _build(self) -> str:
        """What went wrong. ``--force`` because setuptools does not look at headers; ninja does."""
        command = [sys.executable, "setup.py", "build_ext", "--inplace", "--force"]
        environment = os.environ | {"MAX_JOBS": str(self.jobs)}
        done = subprocess.run(command, cwd=self.folder, capture_output=True, env=environment, text=True)
        return (done.stdout + done.stderr)[-3000:] if done.returncode else ""

    def _built(self) -> list[Path]:
        return [*self.folder.glob("build/temp.*"), *(self.folder / "normkernels").glob("*.so")]

    def _keep(self) -> None:
        """Objects with their times, so that what a mutation made of them is not made again after it."""
        kept = self.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        subprocess.run(["cp", "-a", *self._built(), kept], check=True)

    def _restore(self) -> None:
        for path in self._built():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.folder / "kept").iterdir():
            shutil.move(path, self.folder / ("build" if path.is_dir() else "normkernels") / path.name)


def files(path: Path) -> list[Path]:
    """A file, or what lies below a folder but for what was built."""
    if not path.is_dir():
        return [path] if path.exists() else []
    return [p for p in path.rglob("*") if p.is_file() and p.suffix not in (".so", ".pyc")]


def copy(source: Path, target: Path) -> None:
    """The time of a file that is there already stays."""
    if not target.exists() or source.read_bytes() != target.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
