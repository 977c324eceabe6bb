"""Results that a notebook shows as tables; everywhere else they are the dicts and lists that they are."""

from collections.abc import Iterable
from html import escape
from typing import Any


def html(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table; whatever looks like HTML is text."""

    def line(kind: str, cells: Iterable[Any]) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"

    return f"<table>{line('th', names)}{''.join(line('td', row) for row in rows)}</table>"


class Backends(dict[str, dict[str, str | None]]):
    """Of :func:`normkernels.backends`: a row for each op, and a reason where a backend cannot run it."""

    def _repr_html_(self) -> str:
        names = next(iter(self.values()), {})
        return html(("op", *names), ((op, *(why or "yes" for why in row.values())) for op, row in self.items()))


class Results(list[dict[str, Any]]):
    """Of :func:`normkernels.results.read`: a dict for each row; columns that no row has a value in are not shown."""

    def _repr_html_(self) -> str:
        names = [
            n for n in dict.fromkeys(n for row in self for n in row) if any(r.get(n) not in (None, "") for r in self)
        ]
        return html(names, ((shown(row.get(name)) for name in names) for row in self))


def shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
