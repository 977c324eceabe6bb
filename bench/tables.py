"""Rows on the terminal."""

from dataclasses import fields

from rich.console import Console
from rich.table import Table

from .report import OURS, SHARES, Row

TITLES = {"gb_s": "GB/s", "copy_percent": "%copy", "sweeps_percent": "%sweeps", "x_eager": "x eager",
          "x_compile": "x compile", "x_best": "x best", "base_us": "base us", "x_base": "x base",
          "host_us": "host us"}  # fmt: skip
TEXT = ("op", "mode", "shape", "dtype", "backend")


def table(rows: list[Row], device: str) -> Table:
    """The rows; ours stand out, a wrong result stands out more."""
    names = [f.name for f in fields(Row)]
    always = {*TEXT, "us", "p20", "p80", "gb_s", "copy_percent", "x_eager", "x_compile", "check"}
    varied = {"threads": len({r.threads for r in rows}) > 1, "host_us": device == "cuda", "timer": device == "cuda"}
    varied |= {n: any(getattr(r, n) for r in rows) for n in ("sweeps_percent", "base_us", "x_base")}
    names = [n for n in names if n in always or varied.get(n)]
    out = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in names:
        out.add_column(TITLES.get(name, name), justify="left" if name in (*TEXT, "check") else "right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        if before and (before.op, before.mode, before.shape, before.dtype) != (row.op, row.mode, row.shape, row.dtype):
            out.add_section()
        out.add_row(*(_text(name, getattr(row, name)) for name in names), style=_style(row))
    return out


def line(row: Row) -> str:
    """A row on its own, before its table is there."""
    told = ("us", "copy_percent", "x_eager", "x_best")
    numbers = [f"{_text(name, value)} {TITLES.get(name, name)}" for name in told if (value := getattr(row, name))]
    return ", ".join([" ".join(getattr(row, name) for name in TEXT), *numbers, row.check])


def _style(row: Row) -> str | None:
    styles = ["bold"] if row.backend in OURS else []
    return " ".join(styles + (["red"] if row.check not in ("", "ok") else [])) or None


def overhead_table(rows: list[Row]) -> Table:
    out = Table(title="host time of one module call", title_justify="left", box=None)
    for name in ("module", "mode", "shape", "threads", "torch us", "ours us", "ours / torch"):
        out.add_column(name, justify="left" if name in ("module", *TEXT) else "right")
    for theirs, ours in zip(rows[::2], rows[1::2], strict=True):
        values = [ours.op, ours.mode, ours.shape, ours.threads, theirs.us, ours.us, ours.us / theirs.us]
        out.add_row(*(_text("", value) for value in values))
    return out


def _text(name: str, value) -> str:
    """Three digits of a number; a long error is told below the table."""
    if isinstance(value, float):
        digits = 0 if value >= 100 or name in SHARES else 1 if value >= 10 else 2
        return f"{value:.{digits}f}"
    return "-" if value is None else "error" if name == "check" and ":" in value else str(value)


def summary_table(groups: list[dict]) -> Table:
    out = Table(title="geometric means, and the lowest shares of a copy", title_justify="left", box=None)
    titles = {name: f"min {TITLES[name]}" for name in SHARES} | {"rows": "shapes"}
    for name in groups[0] if groups else ():
        out.add_column(titles.get(name, TITLES.get(name, name)), justify="left" if name in TEXT else "right")
    for group in groups:
        out.add_row(*(_text(name, value) for name, value in group.items()))
    return out


def console() -> Console:
    """Wide enough for the table, also where the terminal is not."""
    return Console(width=max(Console().width, 140))
