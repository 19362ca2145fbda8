"""What ``exec`` puts into a program never shows there, whatever goes wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cmdorc
import pytest

from cmdorc_telemetry import Telemetry, instrumentation, unmodified
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.programs import Program as Command
from cmdorc_telemetry.programs import ProgramError, find
from cmdorc_telemetry.unmodified import Program, Unasked

from ..agreement import agree

CONFIG = cmdorc.RunnerConfig(commands=[cmdorc.CommandConfig(name="A", command="true", triggers=["go"])])


@pytest.fixture
def orchestrators(home: Home) -> type[cmdorc.CommandOrchestrator]:
    """A class that is followed, of a user who said yes."""
    agree(home)

    class Followed(cmdorc.CommandOrchestrator):
        pass

    return Followed


def test_an_orchestrator_that_cannot_be_attached_is_made_all_the_same(
    orchestrators: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = Program()
    program.follow(orchestrators)
    monkeypatch.setattr(Telemetry, "start", lambda *_, **__: 1 / 0)
    assert orchestrators(CONFIG).list_commands() == ["A"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "an orchestrator goes without telemetry: ZeroDivisionError" in caplog.text
    program.end()


def test_an_orchestrator_of_another_shape_is_left_alone(
    orchestrators: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = Program()
    program.follow(orchestrators)
    monkeypatch.setattr(instrumentation, "_OF_EXECUTOR", ("start_run", "unheard_of"))
    made = orchestrators(CONFIG)
    assert instrumentation.attached(made) is None
    assert not vars(made).keys() & {"trigger", "shutdown"}
    assert "leaves this orchestrator alone" in caplog.text


def test_an_end_that_fails_is_not_shown_to_the_program(
    orchestrators: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = Program()
    program.follow(orchestrators)
    made = orchestrators(CONFIG)
    monkeypatch.setattr(Unasked, "speak", lambda _: 1 / 0)
    telemetry = instrumentation.attached(made)
    monkeypatch.setattr(Telemetry, "close", lambda _: 1 / 0)
    program.end()
    assert "an orchestrator's end goes without telemetry: ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert telemetry is not None
    telemetry.close()


def test_a_copy_in_another_process_has_no_end_to_tell_of(orchestrators: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program()
    program.follow(orchestrators)
    made = orchestrators(CONFIG)
    fired: list[str] = []
    monkeypatch.setattr(Telemetry, "fire", lambda _, hook, record: fired.append(hook))
    monkeypatch.setattr(unmodified.os, "getpid", lambda: 1)
    program.end()
    assert fired == []
    monkeypatch.undo()
    telemetry = instrumentation.attached(made)
    assert telemetry is not None
    telemetry.close()


def test_what_is_no_path_is_no_project(orchestrators: Any, tmp_path: Path) -> None:
    import io

    program = Program()
    load = program.remembering(lambda paths: CONFIG)
    load(paths=[io.BytesIO(b"")])
    assert program.config_of(CONFIG) is None


def test_a_file_that_cannot_be_read_is_told_by_the_kernel(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="is no Python program"):
        Command(str(tmp_path), ("folder",)).injected({})
    with pytest.raises(ProgramError, match="no such program"):
        find(["x"], {"PATH": f"{tmp_path}/none:{tmp_path}"})
    with pytest.raises(ProgramError, match="cannot be asked"):
        Command(str(tmp_path / "python3"), ("python3",)).injected({})
