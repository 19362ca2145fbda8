"""A home of its own, commands run in it, plugins installed for one test, and a terminal for those that ask."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cmdorc_telemetry import CompletedRun, Session, Telemetry, Trigger
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.cli import erase
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import CI_VARIABLES

DEADLINE = 20.0
_SAID = (*CI_VARIABLES, "DO_NOT_TRACK", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "CMDORC_TELEMETRY",
         "CMDORC_TELEMETRY_CONFIG")  # fmt: skip

RUN = CompletedRun(run_id="r", command_name="Tests", state="success", duration=3.5)
JOT = """
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Jot(TelemetryReporter):
    async def report(self, event, payload):
        with open("jotted.txt", "a") as file:
            print(event, payload["event_id"], file=file)

@hookimpl
def telemetry_reporters():
    return [Jot]
"""
"""A reporter that needs no settings."""


class Machine:
    """A home directory and a working directory."""

    run = RUN

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.site = folder / "site"
        self.home = Home(folder / "home")
        self._patch = monkeypatch
        self._modules: list[str] = []

    # -- files --------------------------------------------------------------------------------------------------

    def config(self, text: str) -> Path:
        self.home.root.mkdir(exist_ok=True)
        self.home.config.write_text(text, encoding="utf-8")
        return self.home.config

    def project(self, text: str, name: str = "cmdorc.toml") -> Path:
        path = self.work / name
        path.write_text(text, encoding="utf-8")
        return path

    def plugin(self, name: str, code: str = JOT, *, version: str = "1.0", api: str = "") -> None:
        """Install a distribution of that name with one module and one entry point."""
        info = self.site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (self.site / f"{name}.py").write_text(code, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        declared = f"[cmdorc_telemetry.api]\n{name} = {api}\n" if api else ""
        (info / "entry_points.txt").write_text(f"[cmdorc_telemetry]\n{name} = {name}\n{declared}")
        self._patch.syspath_prepend(str(self.site))
        self._patch.setenv("PYTHONPATH", str(self.site), prepend=os.pathsep)
        self._modules.append(name)

    def forget_modules(self) -> None:
        for name in self._modules:
            sys.modules.pop(name, None)

    def files(self) -> dict[str, bytes]:
        """Every file of the home, by its name below it."""
        root = self.home.root
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    # -- commands -------------------------------------------------------------------------------------------------

    def __call__(self, *args: str, code: int = 0) -> Result:
        """Run a command; it must end with ``code``, and never in a traceback."""
        result = CliRunner().invoke(group, args)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == code, result.output
        return result

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--json").stdout)

    def opt_in(self, *args: str) -> None:
        self("opt-in", "--yes", *args)

    # -- programs -------------------------------------------------------------------------------------------------

    def program(self) -> Telemetry:
        """A program that records, still running."""
        return Telemetry.start(CMDORC._replace(version="0.12.0"))

    def record(self, *runs: CompletedRun, trigger: bool = False) -> None:
        """A program that started, ran ``runs`` (one of its own by default), and ended."""
        program = self.program()
        session = Session(id="s", started_at=0.0, command_count=2, config_name="cmdorc.toml")
        program.fire("cmdorc_startup", session)
        for run in runs or (RUN,):
            program.fire("cmdorc_completed", run)
        if trigger:
            program.fire("cmdorc_trigger", Trigger(name="go", outcome="ran", runs_started=1))
        program.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name in _SAID:
        monkeypatch.delenv(name, raising=False)
    machine = Machine(tmp_path, monkeypatch)
    machine.work.mkdir()
    monkeypatch.chdir(machine.work)
    monkeypatch.setenv("CMDORC_HOME", str(machine.home.root))
    yield machine
    machine.forget_modules()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, the next command hears the answer."""
    monkeypatch.setattr(erase, "RETRY_SECONDS", 20.0)


class Terminal:
    """A command on a terminal of its own; standard output apart, unless ``whole``."""

    def __init__(self, *args: str, columns: int = 100, whole: bool = False, python: tuple[str, ...] = ()) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        command = python or ("-m", "cmdorc_telemetry", *args)
        environ = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=slave, stderr=slave, stdout=slave if whole else subprocess.PIPE,
            env=environ, close_fds=True,
        )  # fmt: skip
        os.close(slave)
        self.shown = self.before = ""
        self.stdout = b""

    def until(self, text: str) -> str:
        """Read what is shown until ``text`` is."""
        end = time.monotonic() + DEADLINE
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} never came: {self.shown!r}"
            assert self._read(0.1) is not None, f"it ended before {text!r}: {self.shown!r}"
        return self.shown

    def answer(self, question: str, answer: str) -> None:
        """Wait for a question that was not answered yet, and answer it."""
        self.until(question)
        before, _, self.shown = self.shown.partition(question)
        self.before = before
        os.write(self._master, answer.encode())

    def hang_up(self) -> int:
        """Close the terminal; the exit code."""
        os.close(self._master)
        return self.process.wait(DEADLINE)

    def end(self) -> int:
        """Wait for the end; the exit code."""
        while self._read(DEADLINE):
            pass
        if self.process.stdout is not None:
            self.stdout = self.process.stdout.read()
            self.process.stdout.close()
        os.close(self._master)
        return self.process.wait(DEADLINE)

    def _read(self, timeout: float) -> str | None:
        """What came; empty for nothing yet, None at the end."""
        if not select.select([self._master], [], [], timeout)[0]:
            return ""
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux tells that nobody holds the other end any more
            return None
        self.shown += data.decode()
        return data.decode() or None


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*args: str, **options: Any) -> Terminal:
        opened.append(Terminal(*args, **options))
        return opened[-1]

    yield start
    for each in opened:
        each.process.kill()
        each.process.wait()
        if each.process.stdout is not None:
            each.process.stdout.close()
