"""README and docs are so: their Python runs, their links lead somewhere, their figures are the result files."""

import csv
import re
import runpy
from pathlib import Path

import pytest
import torch

from bench import adoption, performance

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


@every_page
def test_snippets_run(page):
    """In order, each after the ones above it."""
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {}
    torch.manual_seed(0)
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), names)
    if page.name == "README.md":
        assert len(snippets) >= 6


@every_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize(("name", "bar"), [("swap_norms", 1e-5), ("resnet_block", 1e-5)])
def test_short_examples(name, bar, capsys):
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    differences = re.findall(r"difference of .*: (\S+)", capsys.readouterr().out)
    assert differences
    assert all(float(d) <= bar for d in differences)


def test_the_guide_says_what_the_claims_say():
    claims = (ROOT / "docs/claims.md").read_text()
    figures = re.findall(r"\d+\.\d ± \d+\.\d", (ROOT / "docs/guide.md").read_text())
    assert len(figures) > 8
    assert all(figure in claims for figure in figures)


def test_normprop_says_what_the_claims_and_the_times_say():
    """What was seen to enter a layer, what pooling does, and the table of times."""
    claims = (ROOT / "docs/claims.md").read_text()
    text = (ROOT / "docs/normprop.md").read_text()
    pooling = re.search(r"On Fashion-MNIST, 3x3.*?\.\n", text, re.DOTALL)
    entering = re.search(r"\*\*What enters a layer\*\*.*?\n\n", text, re.DOTALL)
    assert pooling
    assert entering
    figures = re.findall(r"\d\.\d+", pooling[0] + entering[0])
    assert len(figures) > 12
    assert [figure for figure in figures if figure not in claims] == []
    with (ROOT / "examples/results/nin_time.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps, rest = ([float(row["value"]) for row in rows if row["quantity"] == name]
                   for name in ("ms a step", "ms without convolutions"))  # fmt: skip
    table = re.findall(r"\| (\d{3}) \| \d{3} \| (\d+) \| ([\d.]+) \|", text)
    assert [tuple(map(float, row)) for row in table] == [
        (round(a), round(b), round(a / steps[1], 2)) for a, b in zip(steps, rest, strict=True)
    ]


def test_adoption_is_what_the_file_says():
    rows = adoption.read()
    assert adoption.PAGE.read_text() == adoption.page(rows), "run python -m bench.adoption --page"
    assert len(rows) > 15
    assert {row[column] for row in rows for column in ("within", "reverted")} == {"yes"}


def test_performance_is_what_the_files_say():
    assert performance.PAGE.read_text() == performance.page(), "run python -m bench.performance"
    faster = f"is {performance.of_the_grid(performance.AMD)} times as fast"
    without = f"{performance.of_the_grid(performance.AVX2)} on one without AVX-512"
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"training step on the CPU {faster}, {without}" in text
    grid = performance.page().partition("## The grid")[2].partition("## Weights")[0].partition("no AVX-512")
    slower, slower_without = (
        sum(map(int, re.findall(r"\((\d+) of \d+\)", part))) for part in (grid[0], grid[2].partition("Zen 4")[0])
    )
    assert f"slower at {slower} of them, and at {slower_without} without AVX-512" in text
