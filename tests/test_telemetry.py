"""What a program holds: it never raises, tells once why it is off, and calls a program's own plugins all the same."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cmdorc_telemetry import Telemetry, TelemetryConfig, TelemetryLevel, hookimpl
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.reporter import TelemetryReporter

from .agreement import agree

RUN = CompletedRun(run_id="r", command_name="secret", state="success", duration=0.25)
LONG = 30.0

DONE = {"duration_ms": 1, "state": "success", "final": True, "manual": True}


class Listener:
    """A program's own plugin."""

    def __init__(self) -> None:
        self.heard: list[CompletedRun] = []

    @hookimpl
    def cmdorc_completed(self, run: CompletedRun) -> None:
        self.heard.append(run)


class Keeper(TelemetryReporter):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        self.kept.append(payload)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    root = tmp_path / "home"
    root.mkdir()
    return Home(root)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    return lambda: caplog.messages


Start = Callable[..., Telemetry]


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    made: list[Telemetry] = []

    def begin(*, variables: dict[str, str] | None = None, **options: Any) -> Telemetry:
        environ = {"CMDORC_HOME": str(home.root), **(variables or {})}
        made.append(Telemetry.start(environ=environ, **options))
        return made[-1]

    yield begin
    for telemetry in made:
        telemetry.close()


async def does_nothing(telemetry: Telemetry) -> None:
    assert not telemetry.recording
    assert telemetry.pipeline is None
    telemetry.fire("cmdorc_completed", RUN)
    assert not telemetry.track("command_completed", DONE)
    assert telemetry.flush()
    telemetry.close()
    await telemetry.aclose()
    telemetry.close()


async def test_off_does_nothing() -> None:
    telemetry = Telemetry.off()
    assert (telemetry.listening, telemetry.failures) == (False, {})
    await does_nothing(telemetry)


async def test_without_a_decision_it_is_off(home: Home, start: Start, warnings: Callable[[], list[str]]) -> None:
    telemetry = start(reporters=[Keeper()])
    assert not telemetry.listening
    await does_nothing(telemetry)
    assert list(home.root.iterdir()) == []
    assert warnings() == []


async def test_with_a_yes_it_records_and_delivers(home: Home, start: Start) -> None:
    agree(home)
    keeper, listener = Keeper(), Listener()
    telemetry = start(plugins=[listener], reporters=[keeper], application=CMDORC._replace(version="0.12.0"))
    assert telemetry.recording
    assert telemetry.listening
    assert telemetry.pipeline is not None
    assert telemetry.pipeline.home.root == home.root
    telemetry.fire("cmdorc_completed", RUN)
    telemetry.fire("cmdorc_unheard_of", RUN)
    assert telemetry.track("command_completed", {"duration_ms": 7, "state": "failed", "final": True, "manual": True})
    assert not telemetry.track("unheard_of", {})
    assert telemetry.flush(LONG)
    assert sorted(each["duration_ms"] for each in keeper.kept) == [7, 250]
    assert {each["cmdorc_version"] for each in keeper.kept} == {"0.12.0"}
    assert listener.heard == [RUN]
    await telemetry.aclose()
    telemetry.close()
    assert not telemetry.track("command_completed", DONE)


def test_the_environment_is_the_process_own_where_none_is_given(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CMDORC_HOME", str(home.root))
    agree(home)
    telemetry = Telemetry.start()
    assert telemetry.recording
    telemetry.close()


@pytest.mark.parametrize("lowering", ["argument", "variable", "no"])
async def test_what_lowers_to_nothing_turns_it_off_but_not_a_programs_plugins(
    home: Home, start: Start, lowering: str
) -> None:
    agree(home)
    options: dict[str, Any] = {}
    if lowering == "argument":
        options["config"] = TelemetryConfig(enabled=False)
    elif lowering == "variable":
        options["variables"] = {"DO_NOT_TRACK": "1"}
    else:
        save_decision(home, {"cmdorc.core": Grant()})
    listener = Listener()
    telemetry = start(plugins=[listener], **options)
    assert telemetry.listening
    await does_nothing(telemetry)
    assert listener.heard == [RUN]
    assert not start(**options).listening


async def test_an_argument_raises_nothing(start: Start) -> None:
    await does_nothing(start(config=TelemetryConfig(enabled=True, level=TelemetryLevel.STANDARD)))


# -- what is wrong with the environment --------------------------------------------------------------------------------


async def test_a_consent_that_cannot_be_read_turns_it_off_with_one_warning(
    home: Home, start: Start, warnings: Callable[[], list[str]]
) -> None:
    agree(home)
    home.consent.write_text("no = [toml")
    await does_nothing(start())
    (warning,) = warnings()
    assert "nothing is recorded or sent" in warning


@pytest.mark.parametrize("plugins", [True, False])
async def test_a_configuration_that_is_wrong_turns_it_off_with_one_warning(
    home: Home, start: Start, warnings: Callable[[], list[str]], plugins: bool
) -> None:
    agree(home)
    home.config.write_text("[telemetry]\nlevle = 3\n")
    listener = Listener()
    telemetry = start(plugins=[listener] if plugins else ())
    assert telemetry.listening is plugins
    await does_nothing(telemetry)
    assert listener.heard == [RUN] * plugins
    (warning,) = warnings()
    assert warning.startswith(f"telemetry is off: {home.config}: telemetry.levle: unknown key")


async def test_a_home_that_cannot_be_written_turns_it_off_with_one_warning(
    tmp_path: Path, start: Start, warnings: Callable[[], list[str]]
) -> None:
    (tmp_path / "file").write_text("")
    listener = Listener()
    variables = {"CMDORC_HOME": str(tmp_path / "file" / "home"), "CMDORC_TELEMETRY": "standard"}
    threads = threading.active_count()
    telemetry = start(plugins=[listener], reporters=[Keeper()], variables=variables)
    await does_nothing(telemetry)
    assert listener.heard == [RUN]
    assert threading.active_count() == threads
    (warning,) = warnings()
    assert warning.startswith("telemetry is off: ")
    assert str(tmp_path / "file" / "home") in warning


def test_a_plugin_that_is_missing_is_told_of_and_the_rest_goes_on(
    home: Home, start: Start, warnings: Callable[[], list[str]]
) -> None:
    agree(home)
    home.config.write_text('[telemetry]\nplugins = ["no-such-plugin"]\n')
    telemetry = start()
    assert telemetry.recording
    assert list(telemetry.failures) == ["no-such-plugin"]
    (warning,) = warnings()
    assert "is not installed. Fix: correct plugins: installed are anomaly, " in warning


def test_what_is_wrong_with_plugins_is_told_also_where_nothing_can_be_written(tmp_path: Path, start: Start) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "operator.toml").write_text('[telemetry]\nplugins = ["no-such-plugin"]\n')
    variables = {"CMDORC_HOME": str(tmp_path / "file" / "home"), "CMDORC_TELEMETRY": "standard",
                 "CMDORC_TELEMETRY_CONFIG": str(tmp_path / "operator.toml")}  # fmt: skip
    telemetry = start(variables=variables)
    assert not telemetry.recording
    assert list(telemetry.failures) == ["no-such-plugin"]


def test_the_users_plugins_are_called_also_where_nothing_is_recorded(
    home: Home, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "bell_dist-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bell-dist\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cmdorc_telemetry]\nbell = bell_of_test_telemetry\n")
    (info.parent / "bell_of_test_telemetry.py").write_text(
        "from cmdorc_telemetry import hookimpl\n@hookimpl\ndef cmdorc_completed(run):\n    run.heard\n"
    )
    monkeypatch.syspath_prepend(info.parent)
    home.config.write_text('[telemetry]\nplugins = ["bell"]\n')
    listener = Listener()
    alone = start()
    alone.fire("cmdorc_completed", RUN)
    assert list(alone.failures) == ["bell"]
    telemetry = start(plugins=[listener])
    telemetry.fire("cmdorc_completed", RUN)
    assert not telemetry.recording
    assert list(telemetry.failures) == ["bell"]  # it was called, and what it raised was kept from the other
    assert listener.heard == [RUN]


def test_only_while_the_interpreter_ends_is_a_fault_of_its_own_kept_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a destructor calls then may find half of all modules gone."""
    telemetry = start(plugins=[Listener()])

    def broken(*_: object, **__: object) -> bool:
        raise AttributeError("half of it is gone")

    telemetry._recorder = SimpleNamespace(track=broken)  # type: ignore[assignment]
    telemetry._listeners = {"cmdorc_completed": (broken,)}  # type: ignore[dict-item]
    with pytest.raises(AttributeError):
        telemetry.track("x", {})
    with pytest.raises(AttributeError):
        telemetry.fire("cmdorc_completed", RUN)
    monkeypatch.setattr(Telemetry, "_finalizing", staticmethod(lambda: True))
    assert not telemetry.track("x", {})
    telemetry.fire("cmdorc_completed", RUN)
    telemetry._recorder = None
