"""Homes as programs left them, ready to be damaged, and programs that go on in them."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cmdorc_telemetry import Telemetry, TelemetryLevel
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Ledger

from ..agreement import agree

DEADLINE = 20.0
RUN = CompletedRun(run_id="r", command_name="c", state="success", duration=0.25)


class Outcome(NamedTuple):
    """What became of one program."""

    recording: bool
    captured: int
    delivered: bool
    warnings: list[str]


class Program:
    """A program that captures a few runs in ``home``, and ends."""

    def __init__(self, home: Home, warnings: list[str]) -> None:
        self.home, self._warnings = home, warnings

    def __call__(self, runs: int = 1, *, flush: bool = True, seconds: float = DEADLINE) -> Outcome:
        self._warnings.clear()
        environ = {"CMDORC_HOME": str(self.home.root)}
        telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"), environ=environ)
        for _ in range(runs):
            telemetry.fire("cmdorc_completed", RUN)
        recorder = telemetry._recorder
        lost = sum(recorder.journal.lost.values()) if recorder is not None else runs
        delivered = telemetry.flush(seconds) if flush else False
        telemetry.close()
        end = time.monotonic() + DEADLINE
        while any(thread.name.startswith("telemetry") for thread in threading.enumerate()):  # it waits 50 ms alone
            assert time.monotonic() < end
            time.sleep(0.001)
        return Outcome(telemetry.recording, runs - lost, delivered, list(self._warnings))

    def ledger(self) -> Ledger:
        """The bookkeeping of the history, as another process reads it."""
        spool = Spool(self.home.spool, reading=True)
        try:
            return spool.ledger()["history"]
        finally:
            spool.close()


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What the core warned of."""
    said: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log, handler = logging.getLogger("cmdorc_telemetry"), Keeping(logging.WARNING)
    log.addHandler(handler)
    yield said
    log.removeHandler(handler)


@pytest.fixture(scope="session")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one event in its history, and two in the segment of a program that is gone."""
    home = Home(tmp_path_factory.mktemp("lived-in") / "home")
    agree(home, TelemetryLevel.MINIMAL)
    home.config.write_text("[telemetry]\nenabled = true\n")
    program = Program(home, [])
    assert program(1).delivered
    assert program(2, flush=False).captured == 2
    return home.root


@pytest.fixture
def home(lived_in: Path, tmp_path: Path) -> Home:
    """A copy of it."""
    return Home(shutil.copytree(lived_in, tmp_path / "home"))


@pytest.fixture
def program(home: Home, warnings: list[str]) -> Program:
    return Program(home, warnings)


@pytest.fixture
def bare(tmp_path: Path, warnings: list[str]) -> Callable[[], Program]:
    """A home with a decision and nothing else."""

    def make() -> Program:
        home = Home(tmp_path / "bare")
        agree(home, TelemetryLevel.MINIMAL)
        return Program(home, warnings)

    return make


@pytest.fixture
def environ() -> dict[str, str]:
    """What a child process should have of the environment. Not coverage: its files would share the faults."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT", "COVERAGE"))}
