"""What setup.py does around a build: one at a time in a folder, nothing stale in the way, one wheel for all."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
in_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found in /proc")


@pytest.fixture
def setup(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("normkernels_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return module


@pytest.fixture
def ninja(tmp_path):
    """A process of that name, which works where a build would."""
    program, folder = tmp_path / "ninja", tmp_path / "build/temp"
    shutil.copy(shutil.which("sleep"), program)
    folder.mkdir(parents=True)
    with subprocess.Popen([program, "60"], cwd=folder) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "ninja\n":  # it has its name a moment after it started
            time.sleep(0.01)
        yield process.pid
        process.kill()


@in_proc
def test_another_build_is_found(setup, ninja, tmp_path):
    assert setup.ninjas(str(tmp_path / "build")) == [ninja]
    assert setup.ninjas(str(tmp_path / "bui")) == setup.ninjas(str(tmp_path / "elsewhere")) == []


def built(setup, monkeypatch) -> list[str]:
    """What the command did."""
    from setuptools import Distribution
    from torch.utils.cpp_extension import BuildExtension

    done = []
    monkeypatch.setattr(BuildExtension, "run", lambda self: done.append("built"))
    command = setup.build_extensions()(Distribution())
    command.build_lib = "built"
    command.run()
    return done


@in_proc
def test_a_build_beside_another_ends(setup, ninja, monkeypatch):
    with pytest.raises(SystemExit, match=rf"another build runs in .*\n  wait for its ninja \(process {ninja}\)"):
        built(setup, monkeypatch)


@pytest.mark.parametrize("place", ["normkernels", "built/normkernels"])
def test_what_an_older_build_left_goes(setup, tmp_path, monkeypatch, place):
    """Python takes _C.cpython-311-... before _C.abi3; the replays are for one Python, and stay."""
    folder = tmp_path / place
    folder.mkdir(parents=True)
    for name in ("_C.cpython-311-x86_64-linux-gnu.so", "_replay_2_13.cpython-311-x86_64-linux-gnu.so", "_C.abi3.so"):
        (folder / name).touch()
    assert built(setup, monkeypatch) == ["built"]
    assert {p.name.split(".")[0] + "." + p.name.split(".")[1][:4] for p in folder.iterdir()} == {
        "_C.abi3", "_replay_2_13.cpyt",
    }  # fmt: skip


def test_one_wheel_serves_every_python(setup, monkeypatch):
    monkeypatch.setattr(setup, "check", lambda: None)
    monkeypatch.setattr(setup, "extension", lambda: "kernels")
    monkeypatch.setattr(setup, "replays", lambda: "replays")
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    monkeypatch.delenv("NORMKERNELS_NATIVE", raising=False)
    assert setup.build()["options"] == {"bdist_wheel": {"py_limited_api": "cp311"}}


def test_the_kernels_stand_on_the_stable_abi(setup, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setup, "cuda", lambda: sys.modules["setup_checks"].Cuda([], "asked for by this test"))
    extension = setup.extension()
    assert extension.py_limited_api
    assert not [name for name in extension.include_dirs if "pybind11" in name]
    assert "torch_python" not in extension.libraries
