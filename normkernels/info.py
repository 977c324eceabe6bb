"""What runs here, on which backend, why not, and on which machine: ``python -m normkernels info``."""

import argparse
import importlib
import io
import json
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import normkernels as nk
from normkernels import _place, _replays
from normkernels._backends import NAMES, triton_version

FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve")

WIDTH = 150  # of the tables in a notebook


def versions() -> dict[str, str]:
    """Python, torch, Triton and normkernels."""
    try:
        importlib.import_module("triton")
        triton = triton_version()
    except Exception as error:  # it may be any module of this name
        triton = f"cannot be imported ({error})"
    return {
        "normkernels": nk.__version__,
        "imported from": f"the source tree {tree}" if (tree := _place.source_tree()) else str(_place.FOLDER),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton,
        "system": platform.platform(),
    }


def native() -> dict[str, str]:
    """How the extensions were built."""
    try:
        kernels = importlib.import_module("normkernels._C").build_info()
    except ImportError as error:
        kernels = {"not built": str(error)}
    return kernels | {
        "replays": f"for torch {_replays.extension.torch}" if _replays.extension else str(_replays.missing)
    }


def cpu() -> dict[str, str]:
    """Model, the features that kernels care about, and threads."""
    path = Path("/proc/cpuinfo")
    lines = [line.split(":", 1) for line in path.read_text().splitlines() if ":" in line] if path.exists() else []
    facts = {key.strip(): value.strip() for key, value in lines}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "model": facts.get("model name") or platform.processor() or platform.machine(),
        "features": " ".join(f for f in FEATURES if f in flags) or "unknown",
        "torch uses": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


def gpus() -> list[dict[str, str]]:
    """Name, memory, compute capability and driver of each GPU."""
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": properties.name,
                "memory": f"{properties.total_memory / 2**30:.1f} GiB",
                "compute capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": str(properties.multi_processor_count),
                "driver": driver(),
            }
        )
    return found


def driver() -> str:
    """The version that nvidia-smi gives, if it is there."""
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    return out.partition("\n")[0].strip() or "unknown"


def modules() -> dict[str, str]:
    """Each public module, and the file of ``normkernels/modules`` that it is in."""
    public = {name: getattr(nk, name) for name in nk.__all__}
    return {
        name: cls.__module__.rpartition(".")[2]
        for name, cls in public.items()
        if isinstance(cls, type) and issubclass(cls, torch.nn.Module)
    }


class Facts(dict[str, Any]):
    """Everything, as ``--json`` prints it; a notebook shows the tables that a terminal does."""

    def _repr_html_(self) -> str:
        console = Console(record=True, width=WIDTH, file=io.StringIO(), force_jupyter=False)
        show(self, console)
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def collect(device: str | None = None) -> Facts:
    """What runs on ``device``, and on which machine."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    ops = nk.backends(device)
    return Facts(
        versions=versions(), native=native(), cpu=cpu(), gpus=gpus(), device=device, modules=modules(), ops=ops
    )


def ops_table(facts: dict[str, Any]) -> tuple[Table, list[str]]:
    """op x backend: yes, or the number of the reason below the table."""
    table = Table("op", *NAMES, "modules", title=f"On {facts['device']}", title_justify="left")
    reasons: list[str] = []
    for op, row in facts["ops"].items():
        cells = []
        for name in NAMES:
            reason = row[name] and f"{name}: {row[name]}"
            if reason and reason not in reasons:
                reasons.append(reason)
            cells.append(f"[red]no[/] ({reasons.index(reason) + 1})" if reason else "[green]yes[/]")
        users = [name for name, stem in facts["modules"].items() if op.rpartition("_")[0] == stem]
        table.add_row(op, *cells, ", ".join(users))
    return table, [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]


def machine_table(facts: dict[str, Any]) -> Table:
    table = Table(show_header=False, title="Versions and machine", title_justify="left")
    groups = {"": facts["versions"], "native": facts["native"], "cpu": facts["cpu"]}
    groups |= {f"gpu {index}": gpu for index, gpu in enumerate(facts["gpus"])} or {"gpu": {"": "none"}}
    for group, items in groups.items():
        for key, value in items.items():
            table.add_row(f"{group} {key}".strip(), value)
        table.add_section()
    return table


def show(facts: dict[str, Any], console: Console) -> None:
    """As tables, and the reasons below the first."""
    table, reasons = ops_table(facts)
    console.print(table)
    for reason in reasons:
        console.print(reason, markup=False, highlight=False)
    console.print(machine_table(facts))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m normkernels info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    args = parser.parse_args(argv)
    console, facts = Console(), collect(args.device)
    if args.json:
        console.out(json.dumps(facts, indent=1), highlight=False)
        return 0
    show(facts, console)
    return 0
