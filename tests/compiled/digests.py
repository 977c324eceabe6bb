"""What the tables in docs/compiled remember of a source, so that only what changed is compiled again."""

import csv
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def included(source: Path) -> set[Path]:
    """The source and every file of ours that it includes."""
    found, left = set(), [source]
    while left:
        path = left.pop()
        found.add(path)
        names = (ROOT / "csrc" / name for name in re.findall(r'#include "([^"]+)"', path.read_text()))
        left += [p for p in {path.resolve() for path in names} if p.exists() and p not in found]
    return found


def digest(source: Path, how: str) -> str:
    """Of the source, all that it includes, and how it is compiled."""
    found = hashlib.sha256(how.encode())
    for path in sorted(included(source)):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def read(path: Path) -> list[list[str]]:
    """The rows of a table, without its head."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def write(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
