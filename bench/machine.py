"""What the numbers were measured on."""

import importlib.util
import platform
import subprocess
from pathlib import Path

import torch

import normkernels

from .timing import cache_bytes, measure

ROOT = Path(__file__).parent.parent  # of a clone, or the package in an install


def describe(device: str, threads: list[int], copy: float) -> dict:
    """Device, versions, commit and threads, as columns of the CSV."""
    return {
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu",
        "driver": _driver() if device == "cuda" else "",
        "cpu": _cpu(),
        "torch": torch.__version__,
        "triton": _triton(),
        "normkernels": f"{normkernels.__version__} {commit()}",
        "threads_set": " ".join(map(str, threads)),
        "copy_gb_s": round(copy, 1),
    }


def line(about: dict) -> str:
    device = f"{about['device']} (driver {about['driver']}), " if about["driver"] else ""
    return (
        f"{device}{about['cpu']}, torch {about['torch']}, triton {about['triton']}, "
        f"normkernels {about['normkernels']}, threads {about['threads_set']}, "
        f"copy beyond caches {about['copy_gb_s']} GB/s"
    )


def copy_gb_s(device: str) -> float:
    """Bytes read plus written by ``dst.copy_(src)`` on buffers beyond the last-level cache, one thread on the CPU."""
    torch.set_num_threads(1)
    elements = max(64 << 20, 4 * cache_bytes(device)) // 4 * (8 if device == "cuda" else 1)
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)
    timing = measure({"copy": [lambda: target.copy_(source)]}, device, seconds=0.3)["copy"]
    return 8 * elements / timing.us / 1e3


def commit() -> str:
    """The short hash, with a + where the tree differs from it. A repository around an install is another's."""
    if not (ROOT / ".git").exists():
        return "(no commit)"
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        clean = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode == 0
    except (OSError, subprocess.CalledProcessError):
        return "(no commit)"
    return head.stdout.strip() + ("" if clean else "+")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [value.split(":", 1)[1].strip() for value in lines if value.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "none"
    import triton

    return triton.__version__
