"""Results that a notebook shows as tables; everywhere else they are the dicts that they are."""

from html import escape


class Backends(dict[str, dict[str, str | None]]):
    """Of :func:`normkernels.backends`: a row for each op, and a reason where a backend cannot run it."""

    def _repr_html_(self) -> str:
        names = next(iter(self.values()), {})
        head = "".join(f"<th>{escape(name)}</th>" for name in ("op", *names))
        rows = (
            f"<tr><td>{escape(op)}</td>" + "".join(f"<td>{escape(why or 'yes')}</td>" for why in row.values()) + "</tr>"
            for op, row in self.items()
        )
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
