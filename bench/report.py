"""A row of results; rows as CSV, as JSON and as a summary."""

import csv
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

OURS = ("triton", "native", "reference")
SHARES = ("copy_percent", "sweeps_percent")


@dataclass
class Row:
    op: str
    mode: str
    shape: str
    dtype: str
    backend: str
    threads: int
    us: float | None = None
    p20: float | None = None
    p80: float | None = None
    gb_s: float | None = None
    copy_percent: float | None = None
    sweeps_percent: float | None = None  # of a copy that moves what two sweeps move
    x_eager: float | None = None
    x_compile: float | None = None
    x_best: float | None = None
    base_us: float | None = None
    x_base: float | None = None
    host_us: float | None = None
    timer: str = ""
    check: str = ""

    @property
    def key(self) -> tuple:
        return self.op, self.mode, self.shape, self.dtype, self.backend, self.threads


def summary(rows: Iterable[Row]) -> list[dict]:
    """For each op, mode, backend of ours and thread count: geometric mean speedups, and the lowest shares of a copy."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.backend in (*OURS, "ours") and row.us:
            groups.setdefault((row.op, row.mode, row.backend, row.threads), []).append(row)
    return [
        dict(zip(("op", "mode", "backend", "threads"), key, strict=True))
        | {name: geometric_mean(getattr(r, name) for r in group) for name in ("x_eager", "x_compile", "x_best")}
        | {name: min(filter(None, (getattr(r, name) for r in group)), default=None) for name in SHARES}
        | {"rows": len(group)}
        for key, group in groups.items()
    ]


def geometric_mean(values: Iterable[float | None]) -> float | None:
    logs = [math.log(v) for v in values if v]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _values(row: Row) -> dict:
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(row).items()}


def write_csv(path: Path, rows: list[Row], machine: dict) -> None:
    """The rows, with the machine in every one, so that files can be put together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*(f.name for f in fields(Row)), *machine])
        writer.writeheader()
        writer.writerows(_values(row) | machine for row in rows)


def write_json(path: Path, rows: list[Row], machine: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "summary": summary(rows), "rows": [_values(row) for row in rows]}
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1))
    os.replace(temporary, path)  # whole at any moment, for it is read while rows come


def read_json(path: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(path.read_text())["rows"]]
