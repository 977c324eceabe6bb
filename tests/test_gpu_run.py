"""``make gpu`` tells the truth however it is cut: what it leaves behind, with steps that stand for the real ones."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import setuptools

from bench import gpu, step
from bench.record import Record
from bench.step import Step

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in {"LEAST": 0.5, "GRACE": 1.0, "LOOK": 0.05}.items():
        monkeypatch.setattr(step, name, seconds)


def python(name: str, code: str, limit: float = 20, **more) -> Step:
    return Step(name, [sys.executable, "-c", code], limit, **more)


def walked(folder: Path, *steps: Step, seconds: float = 60) -> dict:
    """What ``results.json`` says after these steps."""
    record = Record(folder, {"torch": "any"}, list(steps))
    gpu.walk(record, time.monotonic() + seconds, gpu.Console(quiet=True))
    return json.loads(record.results.read_text())


def test_versions_first(tmp_path):
    """The machine and what is planned are told before anything has run."""
    record = Record(tmp_path, {"torch": "any"}, [python("a", "")])
    found = json.loads(record.results.read_text())
    assert (found["machine"], found["steps"][0]["status"]) == ({"torch": "any"}, "waiting")
    assert "torch: any" in record.log.read_text()


def test_all_is_well(tmp_path):
    rows = tmp_path / "rows.json"
    found = walked(tmp_path, python("a", f"open({str(rows)!r}, 'w').write('[1, 2]'); print('hello')", rows=rows))
    assert found["exit_status"] == 0
    assert found["steps"][0]["status"] == "ok"
    assert found["rows"] == {"a": [1, 2]}
    assert "hello" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("code", "status", "why"),
    [
        ("print('walk.h:50:3: error: no such thing'); print('more'); exit(1)", "failed (1)", "no such thing"),
        ("raise ValueError('that')", "failed (1)", "ValueError: that"),
        ("import os; os.kill(os.getpid(), 9)", "killed (signal 9)", ""),
    ],
)
def test_a_failed_step(tmp_path, code, status, why):
    """Its first line that tells why; the next step runs, and the worst one decides."""
    found = walked(tmp_path, python("bad", code), python("good", ""))
    assert [s["status"] for s in found["steps"]] == [status, "ok"]
    assert why in found["steps"][0]["why"]
    assert found["exit_status"] == 1


@pytest.mark.parametrize("ends", ["exit(1)", "import time; time.sleep(60)"])
def test_nothing_native_without_a_build(tmp_path, ends):
    found = walked(tmp_path, python("build", ends, 1), python("exercise", "", native=True), python("triton", ""))
    assert [s["status"] for s in found["steps"]][1:] == ["skipped: the build failed", "ok"]
    assert found["exit_status"] in (1, 2)


def test_time_out_asks_first(tmp_path):
    """SIGINT lets a step tell what it has; one that does not listen is killed, with what it started."""
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('so far 3')"
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    lost = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('2 failed, 5 passed'); exit(2)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as whatever a shell starts in the background has it
    try:
        found = walked(tmp_path, python("told", code, 1.5), python("deaf", deaf, 1.5), python("lost", lost, 1.5))
    finally:
        signal.signal(signal.SIGINT, before)
    assert [s["status"] for s in found["steps"]] == [
        "timed out (2 s)", "timed out (2 s)", "failed, then timed out (2 s)",
    ]  # fmt: skip
    assert found["steps"][0]["tail"][-1] == "so far 3"
    assert found["exit_status"] == 1


def test_no_time_left(tmp_path):
    found = walked(tmp_path, python("long", "import time; time.sleep(60)"), python("late", ""), seconds=2)
    assert [s["status"] for s in found["steps"]] == ["timed out (2 s)", "no time left"]
    assert found["exit_status"] == 2


def test_tests_that_all_skip_are_no_pass(tmp_path):
    (tmp_path / "test_it.py").write_text("import pytest\ndef test_it(): pytest.skip('no kernels')\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    found = walked(tmp_path / "out", Step("tests", command, 60))
    assert found["steps"][0]["status"] == "failed: no test ran"


def test_what_is_missing_is_skipped(tmp_path):
    found = walked(tmp_path, Step("memcheck", ["no-such-sanitizer"], 20), python("good", ""))
    assert [s["status"] for s in found["steps"]] == ["skipped: no no-such-sanitizer here", "ok"]
    assert found["exit_status"] == 0


RUN = """
import sys, time
from pathlib import Path
from bench import gpu, step
from bench.record import Record
step.LOOK = 0.02
code = "import time; print(1, flush=True); time.sleep(0.15)"
steps = [step.Step(str(i), [sys.executable, "-S", "-c", code], 20) for i in range(5)]
gpu.walk(Record(Path(sys.argv[1]), {}, steps), time.monotonic() + 60, gpu.Console(quiet=True))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_cut_anywhere(tmp_path, sent):
    """In each sixth of a run at random: the file is whole, what ended is told, and what did not is not called ok."""
    moments, environment = random.Random(0), os.environ | {"PYTHONPATH": str(ROOT)}
    for i in range(6):
        run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / str(i))], env=environment, stderr=-3)
        results = tmp_path / str(i) / "results.json"
        while not results.exists():
            time.sleep(0.01)
        time.sleep(0.15 * (i + moments.random()))
        run.send_signal(sent)
        run.wait()
        states = [s["status"] for s in json.loads(results.read_text())["steps"]]
        done = sum(s == "ok" for s in states)
        assert states[:done] == ["ok"] * done, states
        now = "running" if sent == signal.SIGKILL else "interrupted"  # there is time to say so
        assert states[done:] in ([now] + ["waiting"] * (4 - done), ["waiting"] * (5 - done), []), states
        assert json.loads(results.read_text())["exit_status"] == (0 if done == 5 else 2)


def test_the_limits_add_up():
    """To what there is, so that the last step is begun even if all others need their time."""
    for device in ("cuda", "cpu"):
        limits = [s.limit for s in gpu.steps(device, Path("rows"), "90")]
        assert sum(limits) <= gpu.TOTAL
        assert min(limits) >= step.LEAST


def test_old_setuptools_build_without_a_pyproject(monkeypatch, tmp_path):
    """The machine's own setuptools may be old: what the run builds from has no pyproject.toml, which it cannot read."""
    build = runpy.run_path(str(ROOT / "setup.py"))["build"]
    monkeypatch.setattr(setuptools, "__version__", "65.5.0")
    monkeypatch.chdir(tmp_path)
    assert [m.name.split(".")[0] for m in build()["ext_modules"]] == ["normkernels"] * 2
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(SystemExit, match=r"setuptools 65.5.0 is too old"):
        build()
