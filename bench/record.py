"""What a run on a GPU leaves behind: one log, and one ``results.json`` that is whole at any moment."""

import csv
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .step import Step

PACKAGES = ("torch", "triton", "numpy", "setuptools", "ninja", "pybind11", "pytest", "liger_kernel", "quack-kernels")
LINES = 12  # of the end of a failed step's output


def answer(*command: str) -> str:
    """The first words that a command prints, or why it prints none."""
    if not shutil.which(command[0]):
        return "not found"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return (done.stdout or done.stderr).strip()
    except subprocess.TimeoutExpired:
        return "no answer in 20 s"


def gpu() -> tuple[str, str, str]:
    """Name, compute capability ("90") and driver of the first GPU; nothing where there is none."""
    text = answer("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
    found = [word.strip() for word in text.partition("\n")[0].split(",")]
    return (found[0], found[1].replace(".", ""), found[2]) if len(found) == 3 else ("", "90", "")


def versions() -> dict[str, str]:
    """Of everything that a result depends on, without importing any of it."""
    name, capability, driver = gpu()
    found = {"gpu": f"{name} sm_{capability}, driver {driver}" if name else "none", "python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    root = str(Path(__file__).parent.parent)
    return found | {
        "nvcc": answer("nvcc", "--version").rpartition("\n")[2],
        "compiler": answer("c++", "--version").partition("\n")[0],
        "system": platform.platform(),
        "cpus": str(os.cpu_count()),
        "commit": answer("git", "-C", root, "describe", "--always", "--dirty"),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }


class Record:
    """``log.txt`` and ``results.json`` in a folder, of steps that run one after the other."""

    def __init__(self, folder: Path, machine: dict[str, str], steps: list[Step]):
        self.folder, self.machine, self.steps = folder, machine, steps
        self.log, self.results = folder / "log.txt", folder / "results.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.log.write_text("".join(f"{key}: {value}\n" for key, value in machine.items()))
        self.tails: dict[str, list[str]] = {}
        self.write()

    def run(self, step: Step, deadline: float) -> None:
        with self.log.open("a") as log:
            log.write(f"\n=== {step.name}: {' '.join(step.command)}\n")
        before = self.log.stat().st_size
        try:
            step.run(self.log, deadline, self.write)
        except BaseException:
            step.status = "interrupted"
            raise
        finally:
            text = self.log.read_bytes()[before:].decode(errors="replace")
            self.tails[step.name] = text.strip().splitlines()[-LINES:] if step.failed or step.cut else []
            with self.log.open("a") as log:
                log.write(f"--- {step.name}: {step.status}, {step.seconds:.0f} s {step.why}\n")
            self.write()

    @property
    def status(self) -> int:
        """Of the worst step: 1 if one failed, 2 if none did but one was cut short, else 0."""
        return 1 if any(s.failed for s in self.steps) else 2 if any(s.cut for s in self.steps) else 0

    def write(self) -> None:
        """Whole or not at all, so that a run that is killed leaves what was last true."""
        steps = [
            {"name": s.name, "status": s.status, "seconds": round(s.seconds, 1), "limit": round(s.limit), "why": s.why,
             "tail": self.tails.get(s.name, []), "command": " ".join(s.command)}
            for s in self.steps
        ]  # fmt: skip
        rows = {s.name: found for s in self.steps if s.rows and (found := _rows(s.rows))}
        content = {"machine": self.machine, "exit_status": self.status, "steps": steps, "rows": rows}
        temporary = self.results.with_suffix(".part")
        temporary.write_text(json.dumps(content, indent=1))
        os.replace(temporary, self.results)


def _rows(path: Path):
    """What a step has found so far."""
    if not path.exists():
        return None
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with path.open() as file:
        return list(csv.DictReader(file))
