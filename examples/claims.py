"""Writes docs/claims.md: what four texts on normalisation claim, beside what the examples measured.

Each _claims_*.py has the claims of one result file of examples/results; a verdict is computed from its numbers.
"""

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from _claim import BLOG, NORMPROP, ONLINE, SLIDES, UNMEASURED, VERDICTS, Claim
from _results import FOLDER, machines

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "claims.md"
SEEDS = {
    NORMPROP: "Arpit et al. 2016, [arXiv:1603.01431](https://arxiv.org/abs/1603.01431)",
    ONLINE: "V. Chiley 2019, of the authors of [arXiv:1905.05894](https://arxiv.org/abs/1905.05894)",
    BLOG: "a blog's notes on layer norm ([arXiv:1607.06450](https://arxiv.org/abs/1607.06450)) in an auto-encoder",
    SLIDES: "Jian Li, lecture slides on batch, layer and group norm",
}
INTRODUCTION = """# What was claimed, and what we see

Written by `python examples/claims.py` from the files of [`examples/results`](../examples/results) and
[`docs/invariances.csv`](invariances.csv): every number under "ours" is in one of them, ± is the standard deviation over
seeds, and a verdict is computed from the numbers. "At its best rate" means: of a few, the one that did best on a fifth
of the training images; where a row does not say so, all that it compares have one rate, the paper's where there is one.
Nets and data are small, one CPU core trained them all: what needs CIFAR-10 for days stands as not measured. Each
command is that which writes its file again; with `--quick`, and `out` for `examples/results`, it takes seconds. How to
get the data: [`examples/README.md`](../examples/README.md)."""


def collected() -> list[Claim]:
    """All claims: in the order of the texts, and of their sections."""
    modules = [import_module(file.stem) for file in sorted(HERE.glob("_claims_*.py"))]
    found = [claim for module in modules for claim in module.claims()]
    return sorted(found, key=lambda claim: (list(SEEDS).index(claim.seed), claim.where))


def _tally(claims: list[Claim]) -> str:
    counts = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS}
    return f"{len(claims)} claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def _line(claim: Claim) -> str:
    command = f"`{claim.command}`" + (f", [plot](../examples/results/{claim.plot})" if claim.plot else "")
    cells = (claim.where, claim.words, claim.paper, claim.ours, f"**{claim.verdict}**", command)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def page() -> str:
    claims = collected()
    parts = [INTRODUCTION, _tally(claims) + "."]
    for seed, source in SEEDS.items():
        lines = [_line(claim) for claim in claims if claim.seed == seed]
        head = ["| where | claim | there | ours | verdict | command |", "|---|---|---|---|---|---|"]
        parts += [f"## {seed}\n\n{source[0].upper()}{source[1:]}."] + (["\n".join(head + lines)] if lines else [])
    return "\n\n".join([*parts, _machines()]) + "\n"


def _machines() -> str:
    """A table of what made each file; what was not recorded is not guessed."""
    known, keys = machines(), ("cpu", "threads", "torch", "normkernels")
    lines = [[path.name, *(known.get(path.stem, {}).get(key, "not recorded") for key in keys)]
             for path in sorted(FOLDER.glob("*.csv"))]  # fmt: skip
    rows = [f"| {' | '.join(cells)} |" for cells in (("file", *keys), ["---"] * (1 + len(keys)), *lines)]
    return "## What made the files\n\n" + "\n".join(rows)


def quick(command: str, folder: Path) -> list[str]:
    """The command on digits, which lie everywhere, in its quick form, with its files in another folder."""
    words = iter(command.split()[1:])
    kept = [word for word in words if word not in ("--data", "--out") or not next(words)]
    return [sys.executable, *kept, "--quick", "--out", str(folder.resolve())]


def run_quickly(folder: Path) -> int:
    """Every command of the page but those of what was not measured; how many of them failed."""
    commands = dict.fromkeys(claim.command for claim in collected() if claim.verdict != UNMEASURED)
    failed = 0
    for command in commands:
        print(command, flush=True)  # noqa: T201
        failed += subprocess.run(quick(command, folder), cwd=HERE.parent).returncode != 0
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="do not write: run every command in its quick form")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what quick forms write")
    chosen = parser.parse_args()
    if chosen.quick:
        return run_quickly(chosen.out)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
