"""docs/claims.md is what the committed results say, and its commands exist."""

import re
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import _jobs
import _nin
import _results
import claims
import conv_batch_sizes
import formulas
from _claim import VERDICTS, judged

ROOT = Path(__file__).parents[1]
TRAINING = [path.stem for path in (ROOT / "examples").glob("[a-z]*.py") if "experiment(" in path.read_text()]
DRAWN = {path.stem for path in _results.FOLDER.glob("*.csv")} - {"formulas", "nin_time"}
CLAIMS = claims.collected()


def test_the_page_is_what_the_results_say():
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page(), "run python examples/claims.py"


def test_the_table_of_gains_is_what_the_results_say():
    """That of docs/normprop.md: outputs, and a gradient on its way back, by the gain that layers start with."""
    found, text = _results.read("formulas"), (ROOT / "docs/normprop.md").read_text(encoding="utf-8")
    for arm in formulas.GAINS:
        names = {formulas.ROOT: "root mean square of o", formulas.UNIT: "deviation of a unit over inputs"}
        for quantity, words in names.items():
            row = " | ".join(f"{value:.2f}" for value in found.curve(arm, quantity))
            assert f": {words} | {row} |" in text
        assert f" | {found.mean(arm, formulas.RATIO):.2f} |" in text


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.words[:40])
def test_every_claim_has_all_its_parts(claim):
    assert claim.seed in claims.SEEDS
    assert claim.verdict in VERDICTS
    assert all((claim.where, claim.words, claim.paper, claim.ours))
    assert not claim.plot or (_results.FOLDER / claim.plot).is_file()
    script = re.fullmatch(r"python ((?:examples|tests)/\w+\.py)( --[a-z]+( [\w./-]+)*)*", claim.command)
    assert script, claim.command
    assert (ROOT / script[1]).is_file()


def test_every_text_has_claims_and_every_result_is_used():
    assert {claim.seed for claim in CLAIMS} == set(claims.SEEDS)
    used = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("_claims_*.py"))
    for path in _results.FOLDER.glob("*.csv"):
        assert re.search(rf"\b{path.stem}\b", used), path.name
    plots = {claim.plot for claim in CLAIMS}
    assert {path.name for path in _results.FOLDER.glob("*.png")} <= plots


def test_quick_forms():
    """The commands of the page, elsewhere and on digits."""
    found = claims.quick("python examples/a.py --data fashion-mnist --time --out examples/results", Path("/somewhere"))
    assert found == [sys.executable, "examples/a.py", "--time", "--quick", "--out", "/somewhere"]


def test_the_shortest_command_writes_its_file(tmp_path):
    command = next(claim.command for claim in CLAIMS if "formulas.py" in claim.command)
    subprocess.run(claims.quick(command, tmp_path), check=True, cwd=ROOT, capture_output=True)
    written, committed = ((folder / "formulas.csv").read_text() for folder in (tmp_path, _results.FOLDER))
    keys = [re.sub(r",[^,]*(,[^,]*,[^,]*)$", r"\1", line, flags=re.MULTILINE) for line in (written, committed)]
    assert keys[0] == keys[1]  # all but the values, whose last digits are a machine's


def test_rates_of_smaller_batches():
    """Online norm's recipe: as much for a sample, forgotten after as many samples. NormProp's: in proportion."""
    rate, momentum = conv_batch_sizes.scaled(0.05, 1)
    assert momentum**64 == pytest.approx(0.9)
    assert rate / (1 - momentum) == pytest.approx(0.05 / (1 - 0.9) / 64)
    assert conv_batch_sizes.scaled(0.05, 64) == pytest.approx((0.05, 0.9))
    assert [_nin.scaled(0.05, batch) for batch in (1, 50, 100)] == pytest.approx([0.001, 0.05, 0.08])


def test_jobs_run_one_after_the_other(capsys):
    def count(n: int):
        for _ in range(n):
            yield
        return n

    assert _jobs.run({n: _jobs.Job(n, partial(count, n)) for n in (3, 0, 9)}) == {3: 3, 0: 0, 9: 9}
    assert "3 runs: about 0 s" in capsys.readouterr().out


def test_an_arm_gets_the_rate_that_validates_best(capsys):
    """Of equal ones the lowest; --rate takes the place of all, and nothing runs."""

    def trial(arm: str, rate: float):
        yield
        return {"a": -abs(rate - 0.1), "b": 0.0}[arm]

    rates = {"a": (0.01, 0.1, 1.0), "b": (0.1, 0.01)}
    start = lambda arm, rate: _jobs.Job(1, partial(trial, arm, rate))  # noqa: E731
    best, found = _jobs.tuned(SimpleNamespace(rate=None), rates, start)
    assert best == {"a": 0.1, "b": 0.01}
    assert len(found) == 5
    assert "5 runs to choose rates by" in capsys.readouterr().out
    assert _jobs.tuned(SimpleNamespace(rate=0.5), rates, start) == ({"a": 0.5, "b": 0.5}, {})
    assert {(n.arm, n.at) for n in _jobs.validated("digits", found)} == set(found)


@pytest.mark.parametrize("name", TRAINING)
def test_examples_that_train_have_one_style(name):
    """The same options, time and progress from the same place, and three seeds unless asked otherwise."""
    source = (ROOT / "examples" / f"{name}.py").read_text()
    assert all(name in source for name in ("from _jobs import", "run(", "sys.exit(main(", "chosen.seeds"))
    module = import_module(name)
    assert all(hasattr(module, name) for name in ("measure", "report", "plots"))


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_plots_are_drawn_from_the_files_alone(name):
    """Legends beside the lines and words large enough for half the size; no panel has a legend of its own."""
    figures = import_module(name).plots(_results.read(name))
    assert {path.name for path in _results.FOLDER.glob(f"{name}*.png")} <= set(figures)
    for figure in figures.values():
        assert len(figure.legends) == 1
        assert all(text.get_fontsize() >= 12 for text in figure.legends[0].get_texts())
        for axes in figure.axes:
            assert axes.get_legend() is None
            assert axes.get_title()
            assert min(label.get_fontsize() for label in (axes.title, axes.xaxis.label, axes.yaxis.label)) >= 12


def test_verdicts():
    assert [judged(True, True), judged(True, False), judged(False)] == ["reproduced", "partly", "not reproduced"]


def test_results_are_read_as_they_were_written(tmp_path, monkeypatch):
    numbers = [_results.Number("digits", "a", "loss", value, seed, 2) for seed, value in enumerate((1.5, 2.5))]
    numbers.append(_results.Number("digits", "a", "loss", 9.0, 0, 1))
    _results.write(numbers, tmp_path, "other")
    _results.write(numbers, tmp_path, "some")
    lost = _results.Results([*numbers, _results.Number("digits", "a", "loss", float("nan"), 2, 2)])
    assert lost.show("a", "loss") == "not finite"
    assert _results.Results(numbers).show("a", "loss") == "2.0 ± 0.7"
    made = _results.machines(tmp_path)
    assert set(made) == {"other", "some"}
    assert made["some"]["torch"] == torch.__version__
    assert made["some"]["cpu"]
    monkeypatch.setattr(_results, "FOLDER", tmp_path)
    found = _results.read("some")
    assert found.numbers == numbers
    assert (found.data, found.arms("loss"), found.at("a", "loss")) == ("digits", ["a"], [1, 2])
    assert found.curve("a", "loss") == [9.0, 2.0]
    assert found.show("a", "loss") == "2.0 ± 0.7"
    assert found.show("a", "loss", 2, at=1) == "9.00"
    assert not found.on("fashion").numbers
    with pytest.raises(KeyError, match="no 'gain' of 'a'"):
        found.mean("a", "gain")
