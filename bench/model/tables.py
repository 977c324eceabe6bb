"""Predictions as rows of a table."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def told(what: str, rows: Sequence[Any], table: Path) -> int:
    """Prints named tuples, and writes them to the table where the command line says ``--write``; the exit status."""
    sys.stdout.write(f"predicted, not measured: {what}\n")
    sys.stdout.write("".join(f"{row}\n" for row in rows))
    if "--write" in sys.argv:
        with table.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([rows[0]._fields, *rows])
    return 0
