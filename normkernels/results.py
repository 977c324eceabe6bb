"""What ``python -m normkernels validate`` and ``bench`` wrote, for a notebook: a kernel restart loses nothing."""

import csv
import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

from normkernels._tables import Results

NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


def read(path: str | PathLike[str]) -> Results:
    r"""Rows of a file of ``--json`` or ``--csv``, also of one that is still being written; a notebook shows a table.

    Args:
        path: The file that ``validate --json FILE``, ``bench --json FILE`` or ``bench --csv FILE`` names.

    Returns:
        A list of dicts, one for each row.

    Raises:
        ValueError: If the file is neither.

    Example:
        >>> from normkernels import results, validate
        >>> status = validate.main(["rms_norm", "--quick", "--dtype", "float32", "--json", "rms_norm.json"])
        >>> results.read("rms_norm.json")  # in any session, as often as wanted
    """
    path = Path(path)
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return Results({name: _value(text) for name, text in row.items()} for row in csv.DictReader(file))
    if path.suffix == ".json":
        found = json.loads(path.read_text())
        rows = found.get("rows") if isinstance(found, dict) else found
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return Results(rows)
    raise ValueError(f"results.read: path must be a file of --json or --csv, got {str(path)!r}")


def _value(text: str | None) -> Any:
    """A number where it is one; what a CSV leaves empty is nothing."""
    if not text:
        return None
    return (float(text) if "." in text or "e" in text else int(text)) if NUMBER.fullmatch(text) else text
