"""Programs that capture, run as real processes, and what reached the history of their home in the end."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Ledger

DEADLINE = 30.0
BEGIN = """
import atexit, os, signal, sys, threading, time
from pathlib import Path
from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.application import CMDORC

DEADLINE = 20.0

def start(**options):
    return Telemetry.start(CMDORC._replace(version="0.12.0"), **options)

def track(telemetry, number):
    # The number travels as the duration: the one field that says what it is told.
    properties = {"state": "success", "final": True, "manual": True, "duration_ms": number}
    return telemetry.track("command_completed", properties)

def say(*what):
    os.write(1, (" ".join(map(str, what)) + "\\n").encode())

def until(condition, what="it"):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.002)

def wait(child):
    end = time.monotonic() + DEADLINE
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("a child hangs")
        time.sleep(0.001)
"""


class Programs:
    """A home, and programs that capture in it."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        self.environ = {**environ, "CMDORC_HOME": str(self.home.root), "CMDORC_TELEMETRY": "minimal"}
        self._begun: list[subprocess.Popen[str]] = []

    def begin(
        self, code: str, *, python: str = sys.executable, options: tuple[str, ...] = (), covered: bool = True
    ) -> subprocess.Popen[str]:
        """A program under way; what it prints can be read. Not ``covered``: what coverage does would be in the way."""
        environ = {key: value for key, value in self.environ.items() if covered or not key.startswith("COVERAGE")}
        script = self.folder / f"program{len(self._begun)}.py"
        script.write_text(BEGIN + textwrap.dedent(code), encoding="utf-8")
        self._begun.append(subprocess.Popen(
            [python, *options, script], env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
        return self._begun[-1]

    def __call__(self, code: str, *, exit_code: int = 0, quiet: bool = True, **how: Any) -> list[str]:
        """Run a program to its end. What it printed."""
        program = self.begin(code, **how)
        out, err = program.communicate(timeout=DEADLINE)
        assert program.returncode == exit_code, err
        assert not quiet or err == ""
        return out.splitlines()

    def deliver(self) -> Ledger:
        """What the next program, which captures nothing, brings to an end."""
        telemetry = Telemetry.start(environ=self.environ)
        assert telemetry.flush(DEADLINE)
        telemetry.close()
        with closing(Spool(self.home.spool, reading=True)) as spool:
            return spool.ledger()["history"]

    def arrived(self) -> Counter[int]:
        """The numbers of all events, however often each came; none was lost, held back or given a name twice."""
        ledger = self.deliver()
        assert (ledger.pending, ledger.dropped) == (0, {})
        with closing(sqlite3.connect(self.home.history)) as db:
            bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM event")]
        assert ledger.recorded == ledger.acknowledged == len(bodies)
        assert len({body["event_id"] for body in bodies}) == len(bodies)
        return Counter(body["duration_ms"] for body in bodies)

    def end(self) -> None:
        for program in self._begun:
            if program.poll() is None:
                program.kill()
            program.communicate()


@pytest.fixture
def programs(tmp_path: Path):
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT"))}
    programs = Programs(tmp_path, environ)
    yield programs
    programs.end()
