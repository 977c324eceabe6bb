"""The table of ``invariances.py``: its file of numbers, its page, and the words for the numbers."""

import csv
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
CSV, PAGE = "invariances.csv", "invariances.md"
FACTOR = 3.0
CALLS, SAMPLES = 120, 100  # that a state adapts over: 12,000 samples leave 6e-6 of what online norm started with
EXACT, ADAPTED = 1e-6, 1e-2  # relative changes below which a norm is invariant: at once, and with its state adapted
SHRINKS, MODES, OTHERS = "updates shrink", "training against eval()", "others in the batch"
SINGLE, PIXEL = "one sample", "one sample of one pixel"
INTRODUCTION = f"""# What changes the output of which norm

Written by `python tests/invariances.py --out docs`: float64, eps 1e-30, in training. A norm of input stands behind a
product with weights; layers with weights of their own, and the two norms of weights, are measured as they are. The
numbers are in [invariances.csv](invariances.csv).

The first columns are those of table 1 of the paper of layer norm (Ba et al. 2016, arXiv:1607.06450). Data and weight
matrix are rescaled by {FACTOR:g}, or one sample of six is; data are shifted by another number for each feature, the
weight matrix by one vector added to all its rows; each row of it, the weight vector of a unit, is rescaled by a factor
of its own.

* **yes**: the output stays as it was (to {EXACT:g} of its length). *adapts*: it changes, and is what it was (to
  {ADAPTED:g}) once the layer's state has seen {CALLS * SAMPLES:,} samples. no: how much it changes, as a part of its
  length, the state adapted. Cells of recurrent layers take their first step, from a state of zeros.
* {SHRINKS}: with {FACTOR:g} times the weights the gradient is 1/{FACTOR:g}, so that a step of SGD turns them
  {FACTOR**2:g} times less: the scale of updates decreases while weights grow.
* {MODES}: how far the outputs for one batch are apart. {OTHERS}: how much the output for
  a sample changes when the others are exchanged.
* {SINGLE}: whether a layer trains on it, an image if it takes images; and on one pixel, one value for each channel,
  where it refuses, or gives no gradient (two values of a group are 1 and -1 whatever they were).

"""


def cell(column: str, text: str) -> str:
    """The words for a row's numbers."""
    if column in ("layer", SINGLE, PIXEL):
        return text if column != "layer" else f"`{text}`"
    at_once, *state = (float(part) for part in text.split("; "))
    if column in (MODES, OTHERS):
        return "0" if at_once < EXACT else f"{at_once:.1e}" if at_once < 0.01 else f"{at_once:.2f}"
    if at_once < EXACT:
        return "**yes**"
    return "*adapts*" if state and state[0] < ADAPTED else f"no, {state[0] if state else at_once:.2f}"


def page(rows: list[dict[str, str]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(cell(c, row[c]) for c in columns) + " |" for row in rows]
    return INTRODUCTION + "\n".join(lines) + "\n"


def read() -> list[dict[str, str]]:
    with (DOCS / CSV).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, str]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / PAGE).write_text(page(rows), encoding="utf-8")
