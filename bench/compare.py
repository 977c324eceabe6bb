"""``--compare a.csv b.csv``: two result files side by side, and nothing is timed."""

import csv
from pathlib import Path

from rich.table import Table

from .report import geometric_mean

KEY = ("op", "mode", "shape", "dtype", "backend", "threads")
MACHINE = ("device", "cpu", "torch")


def read(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """The timed rows of a file by what was timed; the end with a sentence where it is no such file."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SystemExit(f"bench: --compare {path}: {error.strerror}") from None
    if not rows or not {*KEY, "us"} <= rows[0].keys():
        raise SystemExit(f"bench: --compare {path}: no rows of python -m bench --csv")
    return {tuple(row[k] for k in KEY): row for row in rows if row["us"]}


def main(paths: list[Path], out) -> int:
    """A table of the rows of both, means by op, and what only one has; the exit status: 1 if they share no row."""
    a, b = map(read, paths)
    shared = [key for key in a if key in b]
    for name in MACHINE:
        values = {row.get(name) for rows in (a, b) for row in rows.values()}
        if len(values) > 1:
            out.print(f"[yellow]{name} differs: {', '.join(map(str, sorted(map(str, values))))}[/]", highlight=False)
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in (*KEY, "us of the first", "us of the second", "second x faster"):
        table.add_column(name, justify="left" if name in KEY else "right", no_wrap=True)
    groups: dict[tuple[str, ...], list[float | None]] = {}
    for key in shared:
        before, after = float(a[key]["us"]), float(b[key]["us"])
        groups.setdefault((key[0], key[1], key[4]), []).append(before / after)
        table.add_row(*key, f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}")
    out.print(table)
    for (op, mode, backend), ratios in groups.items():
        mean = geometric_mean(ratios)
        out.print(f"{op} {mode} {backend}: {mean:.2f} over {len(ratios)} rows", highlight=False)
    out.print(f"{len(shared)} rows in both, {len(a) - len(shared)} in {paths[0]} alone, {len(b) - len(shared)} in "
              f"{paths[1]} alone", highlight=False, soft_wrap=True)  # fmt: skip
    return int(not shared)
