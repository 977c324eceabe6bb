"""The outcomes of mutations: a row each in a CSV, and a page that sums them up."""

import csv
import datetime
from collections import defaultdict
from pathlib import Path

from mutations import LAYERS, ROOT, Mutation

FIELDS = ["place", "old", "new", "outcome", "date"]
PAGE = """# Mutations

Each line of the tables in `tests/mutations` breaks the code in one place, on purpose, for the tests that should notice.
`python tests/mutate.py --native --table {csv}` wrote this page; the outcomes lie in [{name}]({name}).

{total}

| layer | file | mutations | killed | survived | not run |
|---|---|---|---|---|---|
{rows}
"""


class Table:
    """Outcomes by mutation; without a path they are kept for this run only."""

    def __init__(self, path: Path | None, mutations: list[Mutation]):
        self.path, self.mutations = path, mutations
        rows = list(csv.DictReader(path.open())) if path and path.exists() else []
        known = {m.key() for m in mutations}
        found = {(row["place"], row["old"], row["new"]): row for row in rows}
        self.rows = {key: row for key, row in found.items() if key in known}

    def has(self, mutation: Mutation) -> bool:
        return mutation.key() in self.rows

    def add(self, mutation: Mutation, outcome: str) -> None:
        """A run that is stopped loses nothing."""
        values = *mutation.key(), outcome, datetime.date.today().isoformat()
        self.rows[mutation.key()] = dict(zip(FIELDS, values, strict=True))
        self.write()

    def outcome(self, mutation: Mutation) -> str:
        return self.rows[mutation.key()]["outcome"] if self.has(mutation) else "not run"

    def bad(self, mutation: Mutation) -> bool:
        """Whether it is neither killed nor known to survive."""
        return self.outcome(mutation) != ("survived" if mutation.survives else "killed")

    def write(self) -> None:
        if self.path is None:
            return
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows[m.key()] for m in self.mutations if self.has(m))
        self.path.with_suffix(".md").write_text(self.page(self.path))

    def page(self, path: Path) -> str:
        by_file = defaultdict(list)
        for m in self.mutations:
            where = {found.relative_to(ROOT / LAYERS[m.layer]).as_posix() for found, _ in m.spots(ROOT)}
            by_file[m.layer, ", ".join(sorted(where)) or "nowhere"].append(m)
        rows = [f"| {layer} | {file} | {self._cells(found)} |" for (layer, file), found in sorted(by_file.items())]
        dates = sorted({row["date"] for row in self.rows.values()}) or ["no day"]
        total = f"{self._sum(self.mutations)}; run on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
        return PAGE.format(csv=path, name=path.name, total=total, rows="\n".join(rows)) + self._survivors()

    def _count(self, mutations: list[Mutation], outcome: str) -> int:
        return sum(self.outcome(m) == outcome for m in mutations)

    def _cells(self, mutations: list[Mutation]) -> str:
        counts = [self._count(mutations, outcome) for outcome in ("killed", "survived", "not run")]
        return " | ".join(map(str, [len(mutations), *counts]))

    def _sum(self, mutations: list[Mutation]) -> str:
        killed, survived, left = (self._count(mutations, o) for o in ("killed", "survived", "not run"))
        return f"{len(mutations)} mutations: {killed} killed, {survived} survived, {left} not run"

    def _survivors(self) -> str:
        lines = [
            f"* {m.place}, {self.outcome(m)}: `{m.old}` becomes `{m.new}`. {m.survives or 'Not explained.'}\n"
            for m in self.mutations
            if self.outcome(m) not in ("killed", "not run")
        ]
        return "\nNot killed:\n\n" + "".join(lines) if lines else ""
