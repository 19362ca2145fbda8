"""What ``exec`` puts into a program never shows there, whatever goes wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cmdorc
import pytest

from cmdorc_telemetry import Telemetry, TelemetryConfig, instrumentation, unmodified
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


def test_one_that_cannot_be_made_leaves_nothing(orchestrators: Any) -> None:
    program = Program()
    program.follow(orchestrators)
    with pytest.raises(AttributeError):
        orchestrators(None)
    assert program._making == {}, "the next one may be at the same place in memory"


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


def test_an_end_that_fails_keeps_nobody_else_from_theirs(orchestrators: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program()
    program.follow(orchestrators)
    made = [orchestrators(CONFIG) for _ in range(2)]
    first, second = (instrumentation.attached(each) for each in made)
    assert first is not None
    assert second is not None
    monkeypatch.setattr(first, "close", lambda: 1 / 0)
    closed = []
    monkeypatch.setattr(second, "close", lambda: closed.append(second))
    program.end()
    assert closed == [second]
    for each in (Telemetry.close(first), Telemetry.close(second)):
        assert each is None


def test_one_that_fails_at_its_end_keeps_no_other_from_being_made(
    orchestrators: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program()
    program.follow(orchestrators)
    gone = orchestrators(CONFIG)
    telemetry = instrumentation.attached(gone)
    assert telemetry is not None
    monkeypatch.setattr(telemetry, "close", lambda: 1 / 0)
    del gone
    gc.collect()
    made = orchestrators(CONFIG)
    assert instrumentation.attached(made) is not None
    program.end()
    Telemetry.close(telemetry)


@pytest.mark.parametrize(
    "order", ["end", "shutdown end", "end shutdown", "dropped", "shutdown dropped end", "dropped end", "end dropped"]
)
def test_an_end_is_told_once(orchestrators: Any, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    program = Program()
    program.follow(orchestrators)
    made = [orchestrators(CONFIG)]
    telemetry = instrumentation.attached(made[0])
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(Telemetry, "fire", lambda _, hook, record: told.append((hook, record)))
    for word in order.split():
        if word == "shutdown":
            asyncio.run(made[0].shutdown())
        elif word == "end":
            program.end()
        else:
            made.clear()
            gc.collect()
            program._sweep()
    sessions = [each for each in told if each[0] != "cmdorc_trigger"]
    assert [hook for hook, _ in sessions] == ["cmdorc_startup", "cmdorc_shutdown"]
    assert sessions[-1][1].uptime > 0
    assert program._open == {}
    assert telemetry is not None
    telemetry.close()


def test_a_program_that_asks_for_nothing_more_gets_what_there_is(orchestrators: Any) -> None:
    program = Program()
    program.follow(orchestrators)
    made = orchestrators(CONFIG)
    telemetry: Any = instrumentation.attached(made)
    recorder = telemetry._recorder
    assert recorder is not None
    assert instrumentation.instrument(made) is telemetry
    assert telemetry._recorder is recorder
    closed = []
    recorder.close = lambda: closed.append(recorder)
    assert instrumentation.instrument(made, config=TelemetryConfig(enabled=False)) is telemetry
    assert telemetry._recorder is None
    assert closed == [recorder], "two would deliver"
    program.end()
    del recorder.close
    recorder.close()


def test_what_several_files_say_holds_together(tmp_path: Path) -> None:
    program = Program()
    load = program.remembering(lambda paths: CONFIG)
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(f'[telemetry]\nspecs = ["{name}.spec.toml"]\n')
    load([str(tmp_path / "a.toml"), tmp_path / "b.toml"])
    config = program.config_of(CONFIG)
    assert config is not None
    assert config.specs == (tmp_path / "a.spec.toml", tmp_path / "b.spec.toml")


def test_what_a_file_says_holds_though_it_is_deleted_when_it_was_loaded(tmp_path: Path) -> None:
    program = Program()
    made = [cmdorc.RunnerConfig(commands=CONFIG.commands) for _ in range(2)]
    given = iter(made)
    load = program.remembering(lambda paths: next(given))
    for text in ("enabled = false", "level = 'minimal'"):
        path = tmp_path / "generated.toml"
        path.write_text(f"[telemetry]\n{text}\n")
        load([path])
        path.unlink()
    first, second, others = map(program.config_of, (*made, CONFIG))
    assert first is not None and second is not None and others is not None  # noqa: PT018 - one fact
    assert (first.enabled, "enabled" in first.unsaid, "level" in first.unsaid) == (False, False, True)
    assert ("enabled" in second.unsaid, "level" in second.unsaid) == (True, False)
    assert (others.enabled, others.unsaid) == (False, frozenset()), "put together of any of them: each lowers"


def test_a_configuration_that_cannot_be_remembered_is_loaded_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.toml").write_text("[telemetry]\nenabled = false\n")
    program = Program()
    made = program.remembering(lambda paths: (1, 2))([tmp_path / "a.toml"])
    assert made == (1, 2)
    config = program.config_of(made)
    assert config is not None
    assert not config.enabled, "it lowers all the same"
    assert "a configuration goes without telemetry's part of it: TypeError" in caplog.text


def test_before_a_copy_of_the_process_is_made_every_begin_is_told(
    orchestrators: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = Program()
    program.follow(orchestrators)
    kept = [orchestrators(CONFIG) for _ in range(2)]
    fired: list[str] = []

    def fire(telemetry: Telemetry, hook: str, record: object) -> None:
        fired.append(hook)
        if len(fired) == 1:
            raise OSError("the disk is full")

    monkeypatch.setattr(Telemetry, "fire", fire)
    for _ in range(2):
        program.speak()
    assert fired == ["cmdorc_startup"] * len(kept)
    assert "an orchestrator's begin goes without telemetry: OSError" in caplog.text
    monkeypatch.undo()
    program.end()


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


def test_what_was_imported_before_loads_as_what_is_imported_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(paths: object) -> object:
        return CONFIG

    monkeypatch.setattr(unmodified, "_program", Program)
    for known in (load, print):
        package, module = (SimpleNamespace(load_configs=each) for each in (known, load))
        monkeypatch.setitem(sys.modules, "cmdorc", cast(Any, package))
        unmodified.prepare(module)
        assert module.load_configs.__wrapped__ is load
        assert package.load_configs is (module.load_configs if known is load else print)


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
