"""``--base REF``: the same shapes on another commit, built in a worktree of its own, right after ours."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import report
from .machine import ROOT
from .report import OURS, Row


def add_column(args, rows: list[Row], device: str, out) -> None:
    """Set ``base_us`` and ``x_base`` of our rows; say which ops REF lacks."""
    ours = [r for r in rows if r.backend in OURS and r.us]
    try:
        with _worktree(args.base) as tree:
            has = {r.op: (tree / f"normkernels/cases/{r.op.split('+')[0]}.py").exists() for r in ours}
            for op in (op for op, found in has.items() if not found):
                out.print(f"[yellow]{args.base} has no case of {op}: no base column for it[/]")
            shapes = {op: tuple(dict.fromkeys(r.shape for r in ours if r.op == op)) for op in has if has[op]}
            alike = [[r for r in ours if shapes.get(r.op) == found] for found in dict.fromkeys(shapes.values())]
            found = {key: us for group in alike for key, us in _bench(args, tree, group, device).items()}
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "").strip().splitlines()[-1:]
        out.print(f"[yellow]base {args.base} does not run: {' '.join(last)}[/]", highlight=False)
        return
    for row in ours:
        if base := found.get(row.key):
            row.base_us, row.x_base = base, base / row.us


@contextmanager
def _worktree(ref: str) -> Iterator[Path]:
    """A built checkout of ``ref`` with the benchmark of today."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        _quietly([*git, "add", "--detach", str(tree), ref])
        try:
            if (tree / "setup.py").exists():
                _quietly([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=tree)
            shutil.rmtree(tree / "bench", ignore_errors=True)
            shutil.copytree(ROOT / "bench", tree / "bench", ignore=shutil.ignore_patterns("results"))
            yield tree
        finally:
            _quietly([*git, "remove", "--force", str(tree)])


def _bench(args, tree: Path, rows: list[Row], device: str) -> dict[tuple, float]:
    """Microseconds by row key, of rows that have the same shapes for every op."""
    result = tree / "base.json"
    command = [sys.executable, "-m", "bench", *dict.fromkeys(r.op for r in rows)]
    command += ["--device", device, "--json", str(result)]
    for option in ("mode", "dtype", "backend", "shape", "threads"):
        command += [f"--{option}", *dict.fromkeys(str(getattr(r, option)) for r in rows)]
    if args.seconds:
        command += ["--seconds", str(args.seconds)]
    subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True)
    if not result.exists():
        raise subprocess.CalledProcessError(1, command, stderr="it wrote no result")
    return {r.key: r.us for r in report.read_json(result) if r.us}


def _quietly(command: list[str], cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
