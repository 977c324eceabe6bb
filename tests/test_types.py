"""What pyright and mypy make of the package: a program of a user's, and every public name."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from test_help import PUBLIC

import normkernels as nk
from normkernels._activations import _TABLE, Activation

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests/typed/program.py"
BIN = Path(sys.executable).parent  # of the environment, where pyright finds torch
ENVIRONMENT = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
# these are torch's own or another library's: a group of processes, and what a call hands on as it is
ANY = {"process_group", "options"}


def run(tool: str, *arguments: str) -> str:
    pytest.importorskip(tool)
    command = [sys.executable, "-m", tool, *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True).stdout


def pyright() -> set[int]:
    found = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(PROGRAM)))
    return {d["range"]["start"]["line"] + 1 for d in found["generalDiagnostics"] if d["severity"] == "error"}


def mypy() -> set[int]:
    lines = run("mypy", "--cache-dir", "build/mypy", str(PROGRAM)).splitlines()
    assert lines
    assert not [line for line in lines if "error:" in line and not line.startswith("tests/typed/program.py")]
    return {int(line.split(":")[1]) for line in lines if "error:" in line and line.startswith("tests/")}


@pytest.mark.parametrize("checker", [pyright, mypy], ids=lambda f: f.__name__)
def test_a_program(checker):
    """Every wrong line is found, and no other."""
    lines = PROGRAM.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) > 10
    assert checker() == wrong


def test_every_exported_symbol_is_known():
    """100 %, of what torch's own types do not hide: pyright knows each, and guesses none."""
    report = json.loads(run("pyright", "--outputjson", "--ignoreexternal", "--verifytypes", "normkernels"))
    found = report["typeCompleteness"]
    assert len(found["symbols"]) > 800
    assert not [s["name"] for s in found["symbols"] if not s["isTypeKnown"] or s["isTypeAmbiguous"]]
    assert found["completenessScore"] == 1


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_is_any(name):
    signature = inspect.signature(inspect.unwrap(PUBLIC[name]))
    loose = [p.name for p in signature.parameters.values() if "typing.Any" in repr(p.annotation)]
    assert set(loose) <= ANY
    assert "typing.Any" not in repr(signature.return_annotation)


def test_the_names_of_activations_are_those_of_the_table():
    assert nk.ACTIVATIONS == get_args(Activation)
    assert set(nk.ACTIVATIONS) == {"leaky_relu", *_TABLE}
