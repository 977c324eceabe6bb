"""Everything that needs a GPU, step after step; one that fails or runs out of time does not stop the next."""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bench.step import Step
from bench.tables import console, summary_table

TOTAL = 570.0  # seconds for all steps together
TAIL = 12  # lines of a failed step's log in the summary


def steps(device: str, folder: Path, arch: str) -> list[Step]:
    """In order of what is needed first; the last ones get what time is left."""
    python = sys.executable
    build = {"NORMKERNELS_CUDA_ARCHS": arch, "MAX_JOBS": str(os.cpu_count())} if device == "cuda" else {}
    workers = ["-p", "xdist", "-n", "8"] if device == "cuda" and importlib.util.find_spec("xdist") else []
    plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever else is installed there
    selected = "cuda" if device == "cuda" else "layer_norm and reference and not cuda"
    alone = "tests/test_cuda.py"  # its tensors are so big that only one test fits on the GPU
    table = ["--json", str(folder / "validate.json")]
    watched = [python, "-m", "bench.exercise", "--device", device]
    recurrent = ["--seconds", "0.5", "--csv", f"{folder}/recurrent.csv"]
    found = [
        Step("build", [python, "setup.py", "build_ext", "--inplace"], 180, build),
        Step("info", [python, "-m", "normkernels", "info"], 40),
        Step("validate", [python, "-m", "normkernels", "validate", "--device", device, *table], 60),
        Step("tests", [python, "-m", "pytest", "tests", "-q", "-k", selected, "--ignore", alone, *workers], 150, plain),
        Step("big tests", [python, "-m", "pytest", alone, "-q"], 60, plain),
        Step("bench stream", [python, "-m", "bench.stream", "--device", device, "--csv", f"{folder}/stream.csv"], 60),
        Step("bench recurrent", [python, "-m", "bench.recurrent", "--device", device, *recurrent], 40),
        *(_bench(python, device, folder, dtype, limit) for dtype, limit in (("bfloat16", 120), ("float32", 50))),
    ]
    if device == "cuda":
        apart = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # each tensor its own allocation, so that its ends are watched
        found.insert(0, Step("nvidia-smi", ["nvidia-smi"], 20))
        for tool in ("memcheck", "racecheck"):
            sanitizer = [_sanitizer(), "--tool", tool, "--error-exitcode", "9", *watched]
            found.append(Step(f"sanitizer {tool}", sanitizer, 100, apart))
    else:
        found.append(Step("exercise", watched, 60))
    return found


def _bench(python: str, device: str, folder: Path, dtype: str, limit: int) -> Step:
    name = f"{folder}/bench-{dtype}"
    files = ["--csv", f"{name}.csv", "--json", f"{name}.json", "--plot", f"{folder}/plots"]
    few = ["--limit", str(limit - 30), "--seconds", "0.1"] if device == "cuda" else ["--quick"]
    return Step(f"bench {dtype}", [python, "-m", "bench", "--device", device, "--dtype", dtype, *few, *files], limit)


def _sanitizer() -> str:
    beside = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/compute-sanitizer"
    return "compute-sanitizer" if shutil.which("compute-sanitizer") else str(beside)


def gpu() -> tuple[str, str]:
    """Name and compute capability ("90") of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.splitlines()[0]
        name, capability = answer.rsplit(",", 1)
        return name.strip(), capability.strip().replace(".", "")
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return "", "90"


def report(found: list[Step], folder: Path, out) -> None:
    """The end of each failed step's log, the benchmark's means, and last the steps, failures first."""
    for step in (s for s in found if s.bad and s.log(folder).exists()):
        lines = step.log(folder).read_text(errors="replace").splitlines()
        out.print(f"[red]{step.name}: {step.status}[/], the end of {step.log(folder)}:")
        out.print(escape("\n".join("    " + line[:150] for line in lines[-TAIL:])), highlight=False)
    for path in sorted(folder.glob("bench-*.json")):
        content = json.loads(path.read_text())
        out.print(f"{path.stem}: {', '.join(str(v) for v in content['machine'].values() if v)}", highlight=False)
        out.print(summary_table(content["summary"]))
    table = Table("step", "status", "seconds", "log", title=f"results in {folder}", title_justify="left", box=None)
    for step in sorted(found, key=lambda s: not s.bad):
        style = "red" if step.bad else "yellow" if step.status.startswith("skipped") else "green"
        table.add_row(step.name, f"[{style}]{escape(step.status)}[/]", f"{step.seconds:.0f}", step.log(folder).name)
    out.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/gpu.sh", description=__doc__)
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the same steps, for trying them"
    )
    parser.add_argument("--seconds", type=float, default=TOTAL, help="for all steps together")
    args = parser.parse_args()
    deadline, out = time.monotonic() + args.seconds, console()
    name, arch = gpu()
    default = f"bench/results/{(name or args.device).replace(' ', '-').lower()}"
    folder = Path(os.environ.get("OUT") or default).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in (*folder.glob("*.json"), *folder.glob("*.log")):
        earlier.unlink()
    found = steps(args.device, folder, arch)
    for step in found:
        out.print(f"{step.name} ...", highlight=False)
        step.run(folder, deadline)
        out.print(f"{step.name}: {step.status}, {step.seconds:.0f} s", highlight=False)
    report(found, folder, out)
    return int(any(step.bad for step in found))


if __name__ == "__main__":
    sys.exit(main())
