"""What a notebook shows of results: tables."""

import json
import re
from pathlib import Path

import pytest

import normkernels as nk
from normkernels import info, results, validate

BENCH = Path(__file__).parents[1] / "bench/results/cpu-amd-epyc"


def test_backends_are_a_table():
    """A row for each op; a reason that has signs of HTML is text."""
    found = nk.backends("cpu")
    html = found._repr_html_()
    assert isinstance(found, dict)
    assert html.count("<tr>") == len(found) + 1
    assert "<td>layer_norm_fwd</td>" in html
    assert "<td>yes</td>" in html
    found["layer_norm_fwd"]["triton"] = "a < b & c"
    assert "<td>a &lt; b &amp; c</td>" in found._repr_html_()


def test_info_is_what_a_terminal_shows():
    facts = info.collect("cpu")
    html = facts._repr_html_()
    text = re.sub("<[^>]*>", "", html)
    for word in ("layer_norm_bwd", "LayerNorm", "normkernels", "torch uses", "imported from"):
        assert word in text
    assert html.startswith("<pre")
    assert json.loads(json.dumps(facts))["ops"] == facts["ops"]


def test_results_print_nothing_by_themselves(capsys):
    info.collect("cpu")._repr_html_()
    assert capsys.readouterr().out == ""


def test_what_validate_wrote_is_a_table(tmp_path):
    """In another session than the one that measured: all there is lies in the file."""
    file = tmp_path / "v.json"
    status = validate.main(["rms_norm", "--quick", "--dtype", "float32", "--backend", "reference", "--json", str(file)])
    found = results.read(file)
    assert status == 0
    assert [(row["op"], row["backend"], row["status"]) for row in found] == [("rms_norm", "reference", "ok")]
    html = found._repr_html_()
    assert "<th>worst</th>" in html
    assert "<td>rms_norm</td>" in html
    assert "<th>detail</th>" in html
    assert html.count("<tr>") == 2


def test_what_bench_wrote_is_a_table(tmp_path):
    """Of a CSV the numbers are numbers; of a JSON the rows lie under a name; a column without a value is not there."""
    from bench.report import Row, write_csv, write_json

    rows = [Row("layer_norm", "fwd", "8x64", "float32", "native", 1, us=1.23456, gb_s=4e-05, check="ok")]
    for name, write in (("b.csv", write_csv), ("b.json", write_json)):
        write(tmp_path / name, rows, {"cpu": "a < b"})
        (found,) = shown = results.read(tmp_path / name)
        assert (found["op"], found["threads"], found["us"], found["host_us"]) == ("layer_norm", 1, 1.235, None)
        assert "<td>1.235</td>" in shown._repr_html_()
        assert "host_us" not in shown._repr_html_()
    assert "<td>a &lt; b</td>" in results.read(tmp_path / "b.csv")._repr_html_()


@pytest.mark.parametrize("path", sorted(BENCH.glob("*.csv")), ids=lambda p: p.name)
def test_every_committed_result_is_a_table(path):
    assert results.read(path)._repr_html_().count("<tr>") == len(path.read_text().splitlines())


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    for name in ("x.json", "x.txt"):
        with pytest.raises(ValueError, match=r"^results.read: path must be a file of --json or --csv, got '.*'$"):
            results.read(tmp_path / name)
