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

| layer | file | mutations | killed | not killed | not run |
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
        if self.path:
            with self.path.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows[m.key()] for m in self.mutations if self.has(m))

    def write_page(self) -> None:
        if self.path:
            self.path.with_suffix(".md").write_text(self.page(self.path))

    def page(self, path: Path) -> str:
        by_file = defaultdict(list)
        for m in self.mutations:
            where = {found.relative_to(ROOT / LAYERS[m.layer]).as_posix() for found, _ in m.spots(ROOT)}
            by_file[m.layer, ", ".join(sorted(where)) or "nowhere"].append(m)
        lines = [(*where, *self._counts(found)) for where, found in sorted(by_file.items())]
        rows = [f"| {' | '.join(map(str, line))} |" for line in lines]
        total = "{} mutations: {} killed, {} not killed, {} not run".format(*self._counts(self.mutations))
        dates = sorted({row["date"] for row in self.rows.values()})
        total += f"; the first on {dates[0]}, the last on {dates[-1]}." if dates else "."
        return PAGE.format(csv=path, name=path.name, total=total, rows="\n".join(rows)) + self._survivors()

    def _counts(self, mutations: list[Mutation]) -> list[int]:
        """Of all how many were killed, how many were not, and how many were not run."""
        killed, left = (sum(self.outcome(m) == outcome for m in mutations) for outcome in ("killed", "not run"))
        return [len(mutations), killed, len(mutations) - killed - left, left]

    def _survivors(self) -> str:
        lines = [
            f"* {m.place}, {self.outcome(m)}: `{m.old}` becomes `{m.new}`. {m.survives or 'Not explained.'}\n"
            for m in self.mutations
            if self.outcome(m) not in ("killed", "not run")
        ]
        return "\nNot killed:\n\n" + "".join(lines) if lines else ""
