"""A disk that takes its time: every capture that waited for it is counted, and ``status`` says so."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from cmdorc_telemetry import Telemetry, journal
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.segment import orphans


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk that takes 20 ms for each record, as long as the list is not empty."""
    writing, taking = os.write, [1]

    def write(fd: int, data: bytes) -> int:
        if taking and data.startswith(b"\n"):
            time.sleep(0.02)
        return writing(fd, data)

    monkeypatch.setattr(os, "write", write)
    return taking


def told(home: Home) -> tuple[int, str]:
    """What ``status`` says: for scripts, and for people."""
    invoke = CliRunner().invoke
    environ = {"CMDORC_HOME": str(home.root)}
    number = json.loads(invoke(group, ["status", "--json"], env=environ).stdout)["slow"]
    return number, "\n".join(
        line for line in invoke(group, ["status"], env=environ).stdout.splitlines() if "Slow" in line
    )


def test_slow_captures_are_counted_and_shown(home: Home, program, slow: list[int]) -> None:
    before, _ = told(home)
    assert program(5) == (True, 5, True, [])
    assert program(1, flush=False).captured == 1
    slow.clear()
    assert program()[:3] == (True, 1, True)
    number, line = told(home)
    assert number >= before + 6
    assert line == f"Slow disk    {number} captures took over 10 ms"


def test_each_is_counted_once_however_often_its_segment_is_read(home: Home, slow: list[int]) -> None:
    before, _ = told(home)
    telemetry = Telemetry.start(environ={"CMDORC_HOME": str(home.root)})
    for _ in range(3):
        for _ in range(3):
            properties = {"state": "success", "final": True, "manual": True, "duration_ms": 1}
            assert telemetry.track("command_completed", properties)
        assert telemetry.flush(20)
    recorder = telemetry._recorder
    assert recorder is not None
    telemetry.close()
    again = Telemetry.start(environ={"CMDORC_HOME": str(home.root)})
    assert again.flush(20)
    again.close()
    assert told(home)[0] == before + recorder.journal.slow


def test_a_segment_tells_of_its_own_alone(tmp_path: Path, slow: list[int]) -> None:
    book = journal.Journal(tmp_path, "g", bounds=Bounds(segment_kib=1))
    for _ in range(7):
        assert book.append(b"x" * 300)
    found = []
    book.close()
    for orphan in orphans(tmp_path):
        segment = orphan.read(0)
        assert segment.drops == {}
        assert segment.slow == len(segment.records)
        found.append(segment.slow)
    assert len(found) > 1
    assert sum(found) == book.slow == 7


def test_a_child_tells_nothing_of_its_parents(tmp_path: Path, slow: list[int]) -> None:
    book = journal.Journal(tmp_path, "g")
    for _ in range(3):
        assert book.append(b"parent")
    slow.clear()
    if (child := os.fork()) == 0:
        journal.SLOW_SECONDS = 60.0
        os._exit(0 if book.append(b"child") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    book.close()
    found = [orphan.read(0) for orphan in orphans(tmp_path)]
    assert sorted((segment.records[0], segment.slow) for segment in found) == [(b"child", 0), (b"parent", 3)]
