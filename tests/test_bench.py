"""The benchmark's command line: what it refuses before it times anything, functions of one's own, files compared."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import checks, compare, own, plots, report, tables
from bench.providers import Task
from bench.run import run

ROOT = Path(__file__).parents[1]
TASK = Task("layer_norm", "64x32", torch.float32, "cpu")
MACHINE = {"device": "cpu", "driver": "", "cpu": "one", "torch": "2", "triton": "3", "normkernels": "0",
           "threads_set": "1", "copy_gb_s": 9.5}  # fmt: skip
FUNCTIONS = """
import torch

def norm(input, normalized_shape, weight, bias, eps):
    return torch.nn.functional.layer_norm(input, normalized_shape, weight, bias, eps)

def wrong(input, weight, bias):
    return input * weight + bias

def other(input, gamma):
    return input

number = 3
"""
BASE = "git knows no such commit" if (ROOT / ".git").exists() else "needs a clone"  # as an unpacked sdist
# arguments, what is said
REFUSED = {
    "op": (["lyer_norm"], "got 'lyer_norm' (did you mean 'layer_norm'?)"),
    "shape": (["layer_norm", "--shape", "1x2x3x4"], "no shape of 1x2x3x4 fits layer_norm"),
    "threads": (["layer_norm", "--threads", "0"], "--threads must be positive, got 0"),
    "seconds": (["layer_norm", "--seconds", "-1"], "--seconds must be positive, got -1.0"),
    "base": (["layer_norm", "--base", "no-such-commit"], BASE),
    "csv": (["layer_norm", "--csv", str(ROOT / "README.md/a.csv")], "a.csv: "),
    "json": (["layer_norm", "--json", str(ROOT)], "cannot be written"),
    "module": (["layer_norm", "--with", "nosuch:fn"], "--with nosuch:fn: No module named 'nosuch'"),
    "function": (["layer_norm", "--with", "mine:nosuch"], "no attribute 'nosuch'; it is given as module:function"),
    "number": (["layer_norm", "--with", "mine:number"], "--with mine:number must be a function, got int"),
    "other-names": (["layer_norm", "--with", "mine:other"], "mine:other asks for gamma; layer_norm gives "),
    "activation": (["layer_norm+gelu", "--with", "mine:norm"], "takes no activation, which layer_norm+gelu has"),
    "compare": (["--compare", "a.csv", "b.csv"], "--compare a.csv: No such file or directory"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what, folder, monkeypatch):
    """One sentence, and no machine was measured for it."""
    arguments, said = REFUSED[what]
    from bench import __main__ as command
    from bench import machine

    def timed(*_):
        raise AssertionError("something was timed")

    monkeypatch.setattr(machine, "copy_gb_s", timed)
    monkeypatch.setattr(command, "keep_memory_mapped", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(SystemExit, match=r"^bench: --device cuda: torch .* is built without CUDA$"):
        checks.device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(SystemExit, match=r"\(CUDA 13.0\) finds no GPU$"):
        checks.device("cuda")
    assert checks.device(None) == checks.device("cpu") == "cpu"


@pytest.mark.parametrize("spec", ["mine:norm", "torch.nn.functional:layer_norm", "mine:wrong"])
def test_a_function_of_one_s_own(spec, folder):
    """It is checked as every provider is, and timed though it be wrong."""
    function = own.fitted(own.load(spec), spec, TASK)
    rows = run(replace(TASK, own=((spec, function),)), ["reference", spec, "copy"], ["fwd", "bwd"], 1, 0.001)
    mine = [row for row in rows if row.backend == spec]
    assert [row.mode for row in mine] == ["fwd", "bwd"]
    assert all(row.us for row in mine)
    assert {row.check.split()[0] for row in mine} == {"OFF" if spec == "mine:wrong" else "ok"}


def rows(us: float) -> list[report.Row]:
    return [report.Row("layer_norm", mode, "64x32", "float32", "native", 1, us, us, us, 2.0, 50.0) for mode in "ab"]


def test_files_side_by_side(folder, capsys):
    report.write_csv(folder / "a.csv", rows(8.0), MACHINE)
    report.write_csv(folder / "b.csv", rows(4.0)[:1], MACHINE | {"torch": "3"})
    assert compare.main([Path("a.csv"), Path("b.csv")], tables.console()) == 0
    said = capsys.readouterr().out
    assert "torch differs: 2, 3" in said
    assert "layer_norm a native: 2.00 over 1 rows" in said
    assert "1 rows in both, 1 in a.csv alone, 0 in b.csv alone" in said
    report.write_csv(folder / "c.csv", [replace(rows(1.0)[0], op="rms_norm")], MACHINE)
    assert compare.main([Path("a.csv"), Path("c.csv")], tables.console()) == 1


def test_a_file_that_is_no_result(folder):
    (folder / "a.csv").write_text("name,value\nx,1\n")
    with pytest.raises(SystemExit, match=r"a\.csv: no rows of python -m bench --csv"):
        compare.read(Path("a.csv"))


def test_a_plot_has_the_copy_of_the_header(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots.plt.Axes, "axhline", lambda self, y, **more: drawn.append((y, more["label"])))
    plots.write_plots(folder / "plots", rows(8.0), MACHINE)
    assert set(drawn) == {(9.5, "copy beyond caches, 9.5")}


def test_rows_come_as_they_are_found(folder):
    """Where the output is no terminal: each shape's rows, and how long it will take."""
    command = [sys.executable, "-m", "bench", "rms_norm", "--mode", "fwd", "--dtype", "float32", "--backend", "copy"]
    shapes = ["--shape", "64x32", "64x64", "--seconds", "0.001"]
    done = subprocess.run([*command, *shapes], cwd=ROOT, capture_output=True, text=True)
    assert "1 of 2 shapes, about" in done.stdout
    assert done.stdout.index("64x32 float32 copy,") < done.stdout.index("1 of 2 shapes")
