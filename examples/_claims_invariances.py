"""The slides' lists of what batch norm and layer norm are robust to, from docs/invariances.csv."""

import csv
from pathlib import Path

from _claim import NORMPROP, ONLINE, SLIDES, Claim, judged

TABLE = Path(__file__).parents[1] / "docs" / "invariances.csv"
COMMAND = "python tests/invariances.py --out docs"
BATCH, LAYER, FILTERS = "BatchNorm2d", "LayerNorm", "NormPropLinear"
DATA, SHIFT, MATRIX, ADDED = "data rescaled", "data shifted", "weight matrix rescaled", "weight matrix shifted"
VECTORS, SHRINKS, MODES = "weight vectors rescaled", "updates shrink", "training against eval()"
OTHERS = "others in the batch"
EXACT = 1e-6


def claims() -> list[Claim]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = {row["layer"]: row for row in csv.DictReader(file)}
    return [
        _kept(rows, "Batch Norm, list", "robust (in training) to scale and shift of the data", BATCH, DATA, SHIFT),
        _kept(rows, "Batch Norm, list", "robust to the scale of a weight vector", BATCH, VECTORS),
        _kept(rows, "Batch Norm, list", "the scale of updates decreases while training", BATCH, SHRINKS),
        _modes(rows),
        _kept(rows, "Layer Norm, list", "robust to the scale of the input", LAYER, DATA),
        _kept(rows, "Layer Norm, list", "robust to scale and shift of the weight matrix", LAYER, MATRIX, ADDED),
        _kept(rows, "Layer Norm, list", "the scale of updates decreases while training", LAYER, SHRINKS),
        _alone(rows),
        _kept(rows, "4.4, constraints", "the scale of a filter changes no output", FILTERS, VECTORS, seed=NORMPROP),
    ]


def _kept(rows: dict, where: str, words: str, layer: str, *columns: str, seed: str = SLIDES) -> Claim:
    found = {column: float(rows[layer][column].split("; ")[0]) for column in columns}
    others = {column: float(rows["no norm"][column]) for column in columns}
    off = {column: f"{value:.0e}" if value else "less than 1e-9" for column, value in found.items()}
    text = "; ".join(
        f"weights times 3, gradient off a third by {off[column]} of it, without a norm {others[column]:.2f}"
        if column == SHRINKS
        else f"{column}, output off by {off[column]}, without a norm {others[column]:.2f}"
        for column in columns
    )
    return Claim(
        seed, where, words, "in words", f"{layer}, float64, {text} ([all norms](invariances.md))",
        judged(*(value < EXACT for value in found.values())), COMMAND,
    )  # fmt: skip


def _modes(rows: dict) -> Claim:
    batch, layer = (float(rows[name][MODES]) for name in (BATCH, LAYER))
    return Claim(
        SLIDES, "Batch Norm, list", "different calculation between training and test", "in words",
        f"the outputs of {BATCH} for a batch of three images are {100 * batch:.0f} % of their length apart, those of "
        f"{LAYER} {100 * layer:.0f} % ([all norms](invariances.md))",
        judged(batch > 0.01, layer < EXACT), COMMAND,
    )  # fmt: skip


def _alone(rows: dict) -> Claim:
    alone, together = ("LayerNorm", "GroupNorm", "InstanceNorm3d"), ("BatchNorm2d",)
    moved = {name: float(rows[name][OTHERS]) for name in (*alone, *together)}
    text = ", ".join(f"{name} {100 * value:.0f} %" for name, value in moved.items())
    return Claim(
        ONLINE, "1.1", "LN, GN and IN depend on a single input, a batch makes the output depend on the set", "in words",
        f"output for a sample when the others of its batch are exchanged, change in its length: {text} "
        "([all norms](invariances.md))",
        judged(*(moved[name] < EXACT for name in alone), *(moved[name] > 0.01 for name in together)), COMMAND,
    )  # fmt: skip
