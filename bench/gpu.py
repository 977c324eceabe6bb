"""Everything that needs a GPU, step after step, what matters most first; one that fails does not stop the next.

``results.json`` and ``log.txt`` are true whenever this is cut: both are rewritten as results come. The exit status is 1
if a step failed, 2 if one was only cut short, 0 if all came to their end.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .record import Record, gpu, versions
from .step import Step

ROOT = Path(__file__).parent.parent
TOTAL = 570.0  # seconds; the limits of the steps add up to it
BARE = ROOT / "build" / "bare"  # what setup.py needs without pyproject.toml, which setuptools before 77 refuses


def steps(device: str, rows: Path, arch: str) -> list[Step]:
    """The native kernels, what they may corrupt, the speed of all kernels, then what takes Triton long to compile."""
    cuda, python, jobs = device == "cuda", sys.executable, str(os.cpu_count())
    build = {"MAX_JOBS": jobs} | ({"NORMKERNELS_CUDA_ARCHS": arch} if cuda else {})
    exercise = [python, "-m", "bench.exercise", "--device", device]

    def module(name: str, limit: float, what: str, *options: str, suffix: str = ".json", **more) -> Step:
        path = rows / f"{name.replace(' ', '-')}{suffix}"
        command = [python, "-m", *what.split(), "--device", device, *options, f"--{suffix[1:]}", str(path)]
        return Step(name, command, limit, rows=path, **more)

    def bench(name: str, limit: float, dtype: str, *options: str) -> Step:
        few = ["--limit", str(limit - 10), "--seconds", "0.1"] if cuda else ["--quick"]
        return module(name, limit, "bench", "--dtype", dtype, *few, *options)

    checked = ["--backend", "native", "triton", "--dtype", "bfloat16", "float32", "--jobs", jobs, "--seconds", "70"]
    if not cuda:
        checked = ["--backend", "native", "--quick"]
    return [
        Step("build", [python, "setup.py", "build_ext", "--inplace"], 110, build, BARE),
        Step("info", [python, "-m", "normkernels", "info"], 15),
        Step("native exercise", exercise, 25, native=True),
        *([_sanitized("memcheck", 50, exercise)] if cuda else []),
        *([_tests("large tensors", 45, ["tests/test_cuda.py"], "native")] if cuda else []),
        _tests("native tests", 45, ["tests", "--ignore=tests/test_cuda.py"], _native(device), "-n", "8"),
        bench("bench bfloat16", 65, "bfloat16", "--without", "compile"),
        module("validate", 80, "normkernels validate", *checked),
        *([_sanitized("racecheck", 30, exercise)] if cuda else []),
        *([_tests("large tensors, triton", 20, ["tests/test_cuda.py"], "triton")] if cuda else []),
        module("bench stream", 15, "bench.stream", "--seconds", "0.1", suffix=".csv"),
        module("bench recurrent", 15, "bench.recurrent", "--seconds", "0.2", suffix=".csv"),
        bench("bench float32", 25, "float32", "--without", "compile"),
        bench("bench with compile", 30, "bfloat16"),
    ]


def _native(device: str) -> str:
    return "native and cuda" if device == "cuda" else "layer_norm and native and not cuda"


def _tests(name: str, limit: float, where: list[str], which: str, *workers: str) -> Step:
    spread = ["-p", "xdist", *workers] if workers and importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", *where, "-q", "-k", which, "--maxfail", "25", *spread]
    plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever else is installed there
    return Step(name, command, limit, plain, native="triton" not in name)


def _sanitized(tool: str, limit: float, exercise: list[str]) -> Step:
    beside = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/compute-sanitizer"
    sanitizer = "compute-sanitizer" if shutil.which("compute-sanitizer") else str(beside)
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *exercise, "--seconds", str(limit - 20)]
    apart = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # each tensor its own allocation, so that its ends are watched
    return Step(tool, command, limit, apart, native=True)


def bare() -> None:
    """Links to what a build needs."""
    BARE.mkdir(parents=True, exist_ok=True)
    for name in ("setup.py", "setup_checks.py", "csrc", "normkernels"):
        if not (BARE / name).exists():
            (BARE / name).symlink_to(ROOT / name)


def report(record: Record, out: Console) -> None:
    """The end of what a step that did not come to its end printed, and last the steps, failures first."""
    for step in (s for s in record.steps if record.tails.get(s.name)):
        out.print(f"[red]{step.name}: {escape(step.status)}[/], the end of what it printed:")
        out.print(escape("\n".join("    " + line[:150] for line in record.tails[step.name])), highlight=False)
    table = Table("step", "status", "seconds", "why", title=f"{record.results}", title_justify="left", box=None)
    for step in sorted(record.steps, key=lambda s: (not s.failed, not s.cut)):
        style = "red" if step.failed else "yellow" if step.status != "ok" else "green"
        table.add_row(step.name, f"[{style}]{escape(step.status)}[/]", f"{step.seconds:.0f}", escape(step.why))
    out.print(table)


def walk(record: Record, deadline: float, out: Console) -> None:
    """Every step; without a build there is nothing native to run."""
    built = True
    for step in record.steps:
        if step.native and not built:
            step.status = "skipped: the build failed"
            record.write()
        else:
            record.run(step, deadline)
        built = built and not (step.name == "build" and (step.failed or step.cut))
        style = "red" if step.failed else "yellow" if step.status != "ok" else "green"
        line = f"{step.name}: [{style}]{escape(step.status)}[/], {step.seconds:.0f} s  {escape(step.why)}"
        out.print(line, highlight=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the same steps, to rehearse")
    parser.add_argument(
        "--seconds", type=float, default=TOTAL, help="for all steps together; their limits grow with it"
    )
    args = parser.parse_args()
    deadline, out, machine = time.monotonic() + args.seconds, Console(width=140), versions()
    for key, value in machine.items():
        out.print(f"{key}: {value}", highlight=False, soft_wrap=True)
    name, arch, _ = gpu()
    folder = Path(os.environ.get("OUT") or ROOT / "bench/results" / (name or args.device).replace(" ", "-").lower())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as after Ctrl-C, the step is stopped and told of
    bare()
    with tempfile.TemporaryDirectory() as rows:
        found = steps(args.device, Path(rows), arch)
        for step in found:
            step.limit *= args.seconds / TOTAL
        record = Record(folder, machine, found)
        try:
            walk(record, deadline, out)
        except KeyboardInterrupt:
            out.print("[red]interrupted[/]")
        record.write()
    report(record, out)
    return record.status


if __name__ == "__main__":
    sys.exit(main())
