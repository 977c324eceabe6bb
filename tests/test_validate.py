"""``python -m normkernels validate``: what it reports when all is well, when something is off, and when it is cut."""

import json

import pytest

from normkernels import validate
from normkernels._backends import unusable

needs_native = pytest.mark.skipif(unusable("native", "rms_norm_fwd", "cpu") is not None, reason="not built")
CALL = ["rms_norm", "weight_norm", "--backend", "native", "--dtype", "float32", "--quick", "--device", "cpu"]


@pytest.fixture
def told(tmp_path):
    """Calls main and gives its exit status and the rows that it wrote."""

    def call(*more):
        path = tmp_path / "validate.json"
        status = validate.main([*CALL, "--json", str(path), *more])
        return status, {row["op"]: row for row in json.loads(path.read_text())}

    return call


@needs_native
def test_all_samples_are_tried(told):
    """By two processes; one at a time below."""
    status, rows = told("--jobs", "2")
    assert status == 0
    assert {op: row["status"] for op, row in rows.items()} == {"rms_norm": "ok", "weight_norm": "ok"}
    assert all(row["samples"] == row["of"] > 10 and 0 < row["worst"] <= 1 for row in rows.values())


@needs_native
def test_one_bad_sample(told, monkeypatch, capsys):
    """It is named at once and at the end, and hides no other."""
    right = validate.check

    def check(op, sample, *rest):
        if sample.id == "4x31" and op.stem == "rms_norm":
            raise RuntimeError("CUDA error")
        return right(op, sample, *rest)

    monkeypatch.setattr(validate, "check", check)
    status, rows = told()
    assert status == 1
    assert (rows["rms_norm"]["status"], rows["weight_norm"]["status"]) == ("error", "ok")
    assert rows["rms_norm"]["samples"] == rows["rms_norm"]["of"]
    assert capsys.readouterr().out.count("error: rms_norm native float32: 4x31: RuntimeError: CUDA error") == 2


@needs_native
def test_worst_sample_wins(told, monkeypatch):
    right = validate.check

    def check(op, sample, *rest):
        reports = right(op, sample, *rest)
        worse = {"3x2": 3.0, "5x33": 7.0}.get(sample.id)
        return [r._replace(worst=worse) for r in reports] if worse else reports

    monkeypatch.setattr(validate, "check", check)
    status, rows = told()
    assert status == 1
    assert [(r["status"], r["worst"], r["where"].split()[0]) for r in rows.values()] == [("off", 7.0, "5x33")] * 2


@needs_native
def test_time_is_up(told, capsys):
    """What was tried is told, and that some was not; that alone is no failure."""
    status, rows = told("--seconds", "0")
    assert status == 0
    assert all(0 < row["samples"] < row["of"] for row in rows.values())
    assert "samples were not tried" in capsys.readouterr().out


@needs_native
def test_interrupted(told, monkeypatch, capsys):
    right, calls = validate.check, []

    def check(op, sample, *rest):
        calls.append(sample)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return right(op, sample, *rest)

    monkeypatch.setattr(validate, "check", check)
    status, rows = told()
    assert status == 130
    assert 0 < sum(row["samples"] for row in rows.values()) < 40
    assert "rms_norm" in capsys.readouterr().out
