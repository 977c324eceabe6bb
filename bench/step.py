"""A command with a time limit and a log."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

LEAST = 15.0  # a step is not begun with less time than this left
UNSUPPORTED = ("Device not supported", "LibraryNotLoaded", "Unable to initialize", "not supported on this")


@dataclass
class Step:
    """A command with its own time limit and log."""

    name: str
    command: list[str]
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    status: str = ""
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        return self.status.startswith(("failed", "timed out", "no time left"))

    def run(self, folder: Path, deadline: float) -> None:
        """Fill in the status and the seconds; the output goes to ``<folder>/<name>.log``."""
        start, limit = time.monotonic(), min(self.limit, deadline - time.monotonic())
        if limit < LEAST or not shutil.which(self.command[0]):
            self.status = "no time left" if limit < LEAST else f"skipped: no {self.command[0]} here"
            return
        with self.log(folder).open("w") as log:
            process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=os.environ | self.environment, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(limit)
                self.status = "ok" if code == 0 else f"failed ({code})"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self.status = f"timed out ({limit:.0f} s)"
        text = self.log(folder).read_text(errors="replace")
        if self.bad and "sanitizer" in self.command[0] and (why := next((u for u in UNSUPPORTED if u in text), None)):
            self.status = f"skipped: {why}"
        self.seconds = time.monotonic() - start

    def log(self, folder: Path) -> Path:
        return folder / f"{self.name.replace(' ', '-')}.log"
