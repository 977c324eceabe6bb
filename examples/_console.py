"""What examples print: lines, and tables of one style."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

console = Console()


def table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """The first column is of names, the others of numbers."""
    found = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, head in enumerate(heads):
        found.add_column(head, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        found.add_row(*row)
    console.print(found)
