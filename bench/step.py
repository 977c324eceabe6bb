"""A command with a time limit, and what became of it."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LEAST = 8.0  # seconds: a step is not begun with less time than this left
GRACE = 8.0  # seconds between SIGINT, after which a step may still tell what it found, and SIGKILL
LOOK = 2.0  # seconds between two looks at a running step
UNSUPPORTED = ("Device not supported", "LibraryNotLoaded", "Unable to initialize", "not supported on this")
# a compiler's line, an exception's, a test's, a check's; the first one says most
BLAME = re.compile(
    r"^.*\b(fatal error|error:|ld: cannot find).*$|^\w*(Error|Exception)\b.*$|^(FAILED|off:|error:) .*$", re.M
)
LOST = re.compile(r"\b[1-9]\d* failed\b")  # of a test run that was cut short


@dataclass
class Step:
    """A command, what it needs, and afterwards how it went."""

    name: str
    command: list[str]
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    rows: Path | None = None  # JSON or CSV that it rewrites as results come
    native: bool = False  # runs nothing but native kernels: pointless without a build
    status: str = "waiting"
    seconds: float = 0.0
    why: str = ""  # the line of its output that tells what went wrong

    @property
    def failed(self) -> bool:
        return self.status.startswith(("failed", "killed"))

    @property
    def cut(self) -> bool:
        """Whether it did not come to its end, so that nobody knows what it would have found."""
        return self.status.startswith(("waiting", "running", "timed out", "no time left", "interrupted"))

    def run(self, log: Path, deadline: float, look: Callable[[], object]) -> None:
        """Fill in what became of it; its output is appended to ``log``, and ``look`` is called now and then."""
        start = time.monotonic()
        left, limit = deadline - start, min(self.limit, deadline - start)
        if left < LEAST or not shutil.which(self.command[0]):
            self.status = "no time left" if left < LEAST else f"skipped: no {self.command[0]} here"
            return
        self.status, before = "running", log.stat().st_size
        look()
        with log.open("a") as output:
            process = subprocess.Popen(
                self.command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.cwd,
                env=os.environ | self.environment, start_new_session=True, preexec_fn=_hears,
            )  # fmt: skip
            try:
                self._wait(process, start + limit, look)
            finally:
                _end(process)
                self.seconds = time.monotonic() - start
        text = log.read_bytes()[before:].decode(errors="replace")
        self.status = self._verdict(process.returncode, limit, text)
        if self.failed:
            self.why = next((m.group().strip() for m in BLAME.finditer(text)), text.strip().rpartition("\n")[2])[:300]

    def _wait(self, process: subprocess.Popen, until: float, look: Callable[[], object]) -> None:
        while process.poll() is None and time.monotonic() < until:
            try:
                process.wait(min(LOOK, max(0.01, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                look()

    def _verdict(self, code: int, limit: float, text: str) -> str:
        """A command that was cut says by its exit status 1, or by the tests it counts, that something failed before."""
        if self.seconds >= limit:
            found = "failed, then " if code == 1 or LOST.search(text) else ""
            return f"{found}timed out ({limit:.0f} s)"
        if code and "sanitizer" in self.command[0] and (why := next((u for u in UNSUPPORTED if u in text), None)):
            return f"skipped: {why}"
        if code == 0 and "pytest" in self.command and not re.search(r"\b[1-9]\d* passed\b", text):
            return "failed: no test ran"
        return "ok" if code == 0 else f"killed (signal {-code})" if code < 0 else f"failed ({code})"


def _hears() -> None:
    """In the command's process: whoever is started in the background by a shell ignores SIGINT, and what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen) -> None:
    """Ask, then force; and whatever it left behind goes too."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
