"""docs/invariances says what is measured now, of every layer."""

import pytest
from invariances import COLUMNS, measure, subjects
from invariances_page import DOCS, PAGE, SINGLE, cell, page, read
from layers import KINDS

SUBJECTS = list(subjects())
ROWS = {row["layer"]: row for row in read()}


def test_page():
    assert (DOCS / PAGE).read_text(encoding="utf-8") == page(list(ROWS.values()))
    assert set(ROWS) == {s.name for s in SUBJECTS} >= {str(layer) for layer in KINDS}


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_row(subject):
    """The words of the page, and the numbers from a thousandth on."""
    found, written = measure(subject), ROWS[subject.name]
    for column in COLUMNS:
        words = [cell(column, row[column]).split(",")[0] for row in (found, written)]
        numbers = [[t for t in row[column].split("; ") if t[:1].isdigit()] for row in (found, written)]
        assert len(numbers[0]) == len(numbers[1])
        if words[0].strip("*").isalpha():
            assert words[0] == words[1], column
        for now, then in zip(*numbers, strict=True):
            if max(float(now), float(then)) > 1e-3:
                assert float(now) == pytest.approx(float(then), rel=0.1), column


def test_the_slides_lists():
    """What lecture slides say of batch norm and layer norm, which the other columns are built like."""
    batch, layer = ROWS["BatchNorm2d"], ROWS["LayerNorm"]
    for row, column in [
        (batch, "data rescaled"), (batch, "data shifted"), (batch, "weight vectors rescaled"),
        (batch, "updates shrink"), (layer, "data rescaled"), (layer, "weight matrix rescaled"),
        (layer, "weight matrix shifted"),
        (layer, "updates shrink"),
    ]:  # fmt: skip
        assert cell(column, row[column]) == "**yes**", column
    assert (ROWS["BatchNormRNN"][SINGLE], layer[SINGLE], ROWS["OnlineNorm2d"][SINGLE]) == ("refused", "yes", "yes")
