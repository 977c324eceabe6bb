"""``python -m bench.performance``: writes docs/performance.md, every figure of it from the files in bench/results."""

import argparse
import csv
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from . import sweep
from .report import geometric_mean

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"
AMD, AVX2, ZEN4, INTEL = "cpu-amd-epyc", "cpu-amd-epyc-avx2", "cpu-amd-epyc-zen4", "cpu-intel-xeon"
TWO = "sweep_two_threads"
INTRODUCTION = """# Performance

Written by `python -m bench.performance` from the files of [`bench/results`](../bench/results); each says on its
lines which CPU, versions and commit it is from. All of it is one thread of a CPU: **no GPU result is published yet**
(`make gpu` produces one). What was tried, and why a figure is what it is: [measured.md](measured.md)."""

Rows = list[dict[str, str]]


def read(machine: str, name: str) -> Rows:
    with (RESULTS / machine / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines))


def words(values: Iterable[str], digits: int = 0) -> str:
    return " ".join(f"{float(v):.{digits}f}" for v in values)


def groups(rows: Rows, *names: str) -> dict[tuple[str, ...], Rows]:
    """Rows that agree in these columns, in the order in which they come."""
    found: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[n] for n in names), []).append(row)
    return found


def kernels(machine: str, name: str, chosen: Callable[[str], bool] = lambda op: True) -> str:
    """Ours beside a copy (of what two sweeps move, where statistics need two), torch eager and torch.compile."""
    rows = [r for r in read(machine, name) if r["backend"] == "native" and r["x_compile"] and chosen(r["op"])]
    lines = [
        [
            op.replace("_", " ").replace("+", ", "), f"{mode} {dtype}", ", ".join(r["shape"] for r in group),
            words(r["sweeps_percent"] or r["copy_percent"] for r in group),
            *(f"{geometric_mean(float(r[by]) for r in group):.2f}" for by in ("x_eager", "x_compile")),
        ]
        for (op, mode, dtype), group in groups(rows, "op", "mode", "dtype").items()
    ]  # fmt: skip
    return table(("", "", "shapes", "% of copy", "x eager", "x compile"), lines)


def streams(machine: str) -> str:
    rows = [r for r in read(machine, "stream") if r["x batch_norm"]]
    norms = list(dict.fromkeys(r["norm"] for r in rows))
    lines = []
    for (shape, dtype), group in groups(rows, "shape", "dtype").items():
        times = {r["norm"]: words([r["x batch_norm"]], 2) for r in group}
        lines.append([f"{shape} {dtype}", *(times.get(n, "") for n in norms)])
    return table(["", *(n.replace("_", " ") for n in norms)], lines)


def normprop() -> str:
    rows = [r for r in read(AMD, "normprop") if r["provider"] == "native"]
    heads = "pass", "activation", "shape", "dtype", "% of copy", "x eager"
    return table(heads, ([*(r[h] for h in heads[:4]), words([r["% of copy"]]), words([r["x eager"]], 2)] for r in rows))


def recurrent(machine: str) -> str:
    rows = [r for r in read(machine, "recurrent") if r["provider"] == "native"]
    heads = "layer", "shape", "dtype", "time in torch.nn's", "times faster than a loop of cells"
    return table(
        heads, ([r["layer"], r["shape"], r["dtype"], *(_or_blank(r[h]) for h in ("x torch", "x loop"))] for r in rows)
    )


def _or_blank(value: str) -> str:
    return words([value], 2) if value else ""


def small() -> str:
    heads = "layer", "shape", "mode", "ours us", "other us", "ours / other"
    return table(heads, ([r[h] for h in heads] for r in read(AMD, "host")))


def of_the_grid(machine: str, name: str = "sweep") -> str:
    """The mean over all its shapes."""
    return f"{geometric_mean(float(r['torch us']) / float(r['ours us']) for r in read(machine, name)):.2f}"


def grid(machine: str, name: str = "sweep") -> str:
    """Of every cell the mean, and how many shapes are slower than torch's."""
    heads = "op", "dtype", "under 50 us", "under 200 us", "under 1 ms", "longer"
    rows = sorted(sweep.means(read(machine, name)).items())
    cell = "{0:.2f} ({1} of {2})".format
    return table(heads, ([*key, *(cell(*found) if found[2] else "" for found in bins)] for key, bins in rows))


def page() -> str:
    rows = ("layer_norm", "rms_norm")
    parts = [
        ("Rows", "", kernels(AMD, "rows", lambda op: op.startswith(rows) and "2d" not in op)),
        (
            "Channels",
            "Statistics need two reads where they fit in no cache, so the share is of a copy of what two sweeps move; "
            "above 100 the second one found something in a cache. `nhwc` is channels_last.",
            kernels(AMD, "rows", lambda op: not op.startswith(rows) or "2d" in op),
        ),
        ("", "On a Zen 4 EPYC, whose memory is slower, all of them:", kernels(ZEN4, "rows")),
        (
            "The grid",
            "Training steps of plain norms at 1,672 shapes, odd and small ones too (`python -m bench.sweep`): torch "
            f"eager's time over ours, {of_the_grid(AMD)} in the geometric mean ([drawn]"
            f"(../bench/results/{AMD}/sweep.png)). By torch's own time; in brackets, how many are slower:",
            grid(AMD),
        ),
        (
            "",
            f"On an AMD EPYC that has AVX2 and no AVX-512, {of_the_grid(AVX2)} ([drawn]"
            f"(../bench/results/{AVX2}/sweep.png)):",
            grid(AVX2),
        ),
        (
            "",
            f"On a Zen 4 EPYC, which has it, {of_the_grid(ZEN4)} ([drawn](../bench/results/{ZEN4}/sweep.png)):",
            grid(ZEN4),
        ),
        (
            "",
            f"There with two threads, ours and torch's, {of_the_grid(ZEN4, TWO)} ([drawn]"
            f"(../bench/results/{ZEN4}/{TWO}.png)):",
            grid(ZEN4, TWO),
        ),
        ("Weights", "Eager is `torch._weight_norm`, or the formula.", kernels(AMD, "weights")),
        ("NormProp", "What it adds to a convolution.", normprop()),
        ("Norms with a state", "A training step in units of our batch norm's, in cache. An AMD EPYC:", streams(AMD)),
        ("", "An Intel Xeon:", streams(INTEL)),
        ("Recurrent layers", "A training step of one layer; steps x batch x units, as many inputs.", recurrent(AMD)),
        ("", "On a Zen 4 EPYC:", recurrent(ZEN4)),
        ("Small inputs", "Where a call is everything; a step is forward and backward.", small()),
    ]
    sections = ["\n\n".join(filter(None, (f"## {title}" if title else "", text, body))) for title, text, body in parts]
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser("python -m bench.performance", description=__doc__).parse_args(argv)
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
