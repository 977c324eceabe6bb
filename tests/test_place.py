"""What is said about where the package lies: an install, or a source tree that stands in front of one."""

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from normkernels import __main__ as command
from normkernels import _backends, _place, _replays, info

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["tree", "install"])
def place(request, tmp_path, monkeypatch):
    """A folder of the package, and the source tree around it, if that is what it is."""
    folder = tmp_path / "normkernels"
    folder.mkdir()
    if request.param == "tree":
        (tmp_path / "setup.py").touch()
        (tmp_path / "csrc").mkdir()
    monkeypatch.setattr(_place, "FOLDER", folder)
    return tmp_path if request.param == "tree" else None


def test_what_is_missing_says_where_it_was_looked_for(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "normkernels._C", None)
    monkeypatch.setitem(sys.modules, _replays.NAME, None)
    monkeypatch.delenv("NORMKERNELS_REPLAY", raising=False)
    for said in (_backends.unusable("native", "layer_norm_fwd", "cpu"), _replays._extension()[1]):
        if place:
            assert f"imports the source tree {place}, and no install" in said
            assert said.endswith("python setup.py build_ext --inplace")
        else:
            assert said.endswith("pip install --no-build-isolation .")


def test_info_names_the_place(place):
    said = info.versions()["imported from"]
    assert said == (f"the source tree {place}" if place else str(_place.FOLDER))


def test_the_benchmark(place, monkeypatch):
    """Is that of the tree that the package is imported from; a wheel has it in the package."""
    name = "bench" if place else "normkernels._bench"
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in (name, f"{name}.__main__"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    given = []
    sys.modules[f"{name}.__main__"].main = lambda *arguments: given.append(arguments) or 3
    assert command.main(["bench", "layer_norm", "--quick"]) == 3
    assert given == [(["layer_norm", "--quick"], "python -m normkernels bench")]
    assert (sys.path[0] == str(place)) == bool(place)


def test_a_copy_of_the_package_is_no_tree(tmp_path):
    """As a wheel lays it down, and with nothing of the clone in the path."""
    shutil.copytree(
        ROOT / "normkernels", tmp_path / "normkernels", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    code = "import normkernels._place as p; print(p.source_tree(), p.FOLDER)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["None", str(tmp_path / "normkernels")]
