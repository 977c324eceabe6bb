"""What is wrong with the arguments of ``python -m bench``, said before anything is timed."""

import importlib.util
import os
import subprocess
from pathlib import Path

import torch

from normkernels._backends import NAMES, backends

from .machine import ROOT
from .providers import Task


def device(asked: str | None) -> str:
    """cuda if there is one; where it was asked for and there is none, why."""
    if asked == "cuda" and not torch.cuda.is_available():
        why = "is built without CUDA" if torch.version.cuda is None else f"(CUDA {torch.version.cuda}) finds no GPU"
        raise SystemExit(f"bench: --device cuda: torch {torch.__version__} {why}")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def arguments(args, tasks: list[Task]) -> None:
    """Numbers, files, the commit of ``--base``, and that what was asked for can run."""
    for name, values in (("threads", args.threads), ("seconds", [args.seconds]), ("limit", [args.limit])):
        if any(v is not None and not v > 0 for v in values):
            raise SystemExit(f"bench: --{name} must be positive, got {' '.join(map(str, values))}")
    for name in ("csv", "json", "plot"):
        if path := getattr(args, name):
            _writable(name, path)
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("bench: --plot needs matplotlib: pip install matplotlib")
    if args.base:
        if not (ROOT / ".git").exists():
            raise SystemExit(f"bench: --base {args.base} needs a clone, which {ROOT} is not")
        command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{args.base}^{{commit}}"]
        if subprocess.run(command, capture_output=True).returncode:
            raise SystemExit(f"bench: --base {args.base}: git knows no such commit in {ROOT}")
    for task in tasks:
        for name in {*(args.backend or ())} & {*NAMES}:
            if why := backends(task.device)[f"{task.stem}_fwd"][name]:
                raise SystemExit(f"bench: --backend {name} cannot run {task.op} on {task.device}: {why}")


def _writable(name: str, path: Path) -> None:
    folder = path if name == "plot" else path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"bench: --{name} {path}: {error.strerror}") from None
    if not os.access(folder, os.W_OK) or (name != "plot" and path.is_dir()):
        raise SystemExit(f"bench: --{name} {path} cannot be written")
