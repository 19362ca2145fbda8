"""What cmdorc does stays as it was; where nobody listens, or cmdorc is not as known, nothing is touched."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cmdorc
import pytest
from cmdorc import (
    CommandConfig,
    CommandExecutor,
    CommandOrchestrator,
    LocalSubprocessExecutor,
    MockExecutor,
    RunnerConfig,
    TriggerContext,
)

from cmdorc_telemetry.application import CMDORC, Application
from cmdorc_telemetry.instrumentation import TelemetryOrchestrator, instrument, observe
from cmdorc_telemetry.lifecycle import CompletedRun

CONFIG = RunnerConfig(
    commands=[
        CommandConfig(name="A", command="echo a", triggers=["go", "command_success:C"]),
        CommandConfig(name="B", command="exit 3", triggers=["command_success:A"], cancel_on_triggers=["stop"]),
        CommandConfig(name="C", command="echo c", triggers=["command_failed:B"]),
        CommandConfig(name="Long", command="exec sleep 20", triggers=["long"]),
        CommandConfig(name="Once", command="exec sleep 20", triggers=[], on_retrigger="ignore"),
    ]
)


def ignore(hook: str, record: object) -> None: ...


async def transcript(orchestrator: CommandOrchestrator) -> list[object]:
    """All that a user sees of an orchestrator that is put through its paces."""
    seen: list[object] = []

    async def say(what: str, call: Any) -> Any:
        try:
            answer = await call
        except Exception as error:
            answer = (type(error), str(error))
        seen.append((what, answer if not hasattr(answer, "run_id") else answer.command_name))
        seen.append(sorted(task.get_coro().__qualname__ for task in asyncio.all_tasks()))  # type: ignore[union-attr]
        return answer

    orchestrator.on_event("*", lambda handle, context: seen.append(context.history[-1] if context else None))
    orchestrator.set_lifecycle_callback("A", on_success=lambda handle, context: seen.append(handle.output))
    await say("startup", orchestrator.startup())
    await say("trigger", orchestrator.trigger("go"))
    while orchestrator.get_all_active_handles() or orchestrator._handles:
        await asyncio.sleep(0.005)
    long = await say("run", orchestrator.run_command("Long", vars={"x": "y"}))
    await say("once", orchestrator.run_command("Once"))
    while {handle.state.value for handle in orchestrator.get_all_active_handles()} != {"running"}:
        await asyncio.sleep(0.005)
    await say("denied", orchestrator.run_command("Once"))
    await say("unknown", orchestrator.run_command("Nobody"))
    await say("cycle", orchestrator.trigger("go", TriggerContext(seen={"go"}, history=["go"])))
    await say("wrong", orchestrator.trigger("go", context=3))  # type: ignore[arg-type]
    await say("cancel", orchestrator.cancel_run(long.run_id, "enough"))
    await say("cancelled", long.wait(timeout=5))
    await say("shutdown", orchestrator.shutdown(timeout=5))
    await say("again", orchestrator.shutdown())
    await say("refused", orchestrator.trigger("go"))
    for name in orchestrator.list_commands():
        seen += [(name, run.state, run.comment, run.output) for run in orchestrator.get_history(name)]
    return [(each[0], each[1].state) if hasattr(each, "state") else each for each in seen]


def test_an_observed_orchestrator_behaves_as_any_other() -> None:
    observed = CommandOrchestrator(CONFIG)
    assert observe(observed, ignore)
    plain = asyncio.run(transcript(CommandOrchestrator(CONFIG)))
    assert asyncio.run(transcript(observed)) == plain
    assert len(plain) > 40


async def test_what_is_put_on_the_instances_and_how_it_looks() -> None:
    plain, executor = CommandOrchestrator(CONFIG), LocalSubprocessExecutor()
    observed = CommandOrchestrator(CONFIG, executor=executor)
    assert observe(observed, ignore)
    assert vars(observed).keys() - vars(plain).keys() == {"trigger", "shutdown"}
    assert vars(executor).keys() - vars(LocalSubprocessExecutor()).keys() == {"start_run", "cancel_run", "cleanup"}
    assert observed._executor is executor
    assert type(executor) is LocalSubprocessExecutor
    for one, other, names in (
        (observed, plain, ("trigger", "shutdown")),
        (executor, plain._executor, ("start_run", "cancel_run", "cleanup")),
    ):
        for name in names:
            mine, theirs = getattr(one, name), getattr(other, name)
            assert inspect.signature(mine) == inspect.signature(theirs)
            assert (mine.__name__, mine.__doc__) == (theirs.__name__, theirs.__doc__)
            assert inspect.iscoroutinefunction(mine)


class Slotted:
    """An executor in all but inheritance that takes no attributes."""

    __slots__ = ()
    start_run = cancel_run = cleanup = update_latest_run = print


class Frozen(MockExecutor):
    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_cmd"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class Proxy:
    """Hands everything on to another executor."""

    def __init__(self, inner: CommandExecutor) -> None:
        self.__dict__["inner"] = inner

    async def start_run(self, *args: Any) -> None:
        await self.inner.start_run(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.inner, name)


class Synchronous(CommandOrchestrator):
    def trigger(self, event_name: str, context: Any = None) -> None:  # type: ignore[override]
        """Of a cmdorc to come."""


class SlottedResult(cmdorc.RunResult):
    """Of a cmdorc to come."""

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(name)


@pytest.mark.parametrize(
    ("make", "lacking"),
    [
        (lambda: CommandOrchestrator(CONFIG, executor=Slotted()), "room for attributes in Slotted"),
        (lambda: CommandOrchestrator(CONFIG, executor=Frozen()), "room for attributes in Frozen"),
        (lambda: CommandOrchestrator(CONFIG, executor=Proxy(MockExecutor())), "room for attributes in Proxy"),
        (lambda: CommandOrchestrator(CONFIG, executor=SimpleNamespace(start_run=1)), "executor.cancel_run, executor.c"),
        (lambda: Synchronous(CONFIG), "coroutine orchestrator.trigger"),
        (lambda: SimpleNamespace(_executor=MockExecutor()), "orchestrator.get_handle_by_run_id"),
        (lambda: None, "orchestrator._executor"),
    ],
)
def test_declines_what_it_does_not_know(
    make: Callable[[], Any], lacking: str, caplog: pytest.LogCaptureFixture
) -> None:
    orchestrator = make()
    executor = getattr(orchestrator, "_executor", None)
    before = [dict(getattr(each, "__dict__", {})) for each in (orchestrator, executor)]
    assert observe(orchestrator, ignore) is None
    assert [dict(getattr(each, "__dict__", {})) for each in (orchestrator, executor)] == before
    (said,) = [record for record in caplog.records if record.name == "cmdorc_telemetry"]
    assert said.levelno == logging.WARNING
    assert f"cmdorc {cmdorc.__version__} has no " in said.message
    assert lacking in said.message


@pytest.mark.parametrize(
    ("name", "value", "lacking"),
    [
        ("RunState", None, "RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED"),
        ("RunResult", None, "cmdorc.RunResult, RunResult.command_name"),
        ("RunResult", SlottedResult, "room for attributes in SlottedResult"),
        ("TriggerCycleError", None, "cmdorc.TriggerCycleError"),
    ],
)
def test_declines_a_cmdorc_that_it_does_not_know(
    name: str, value: Any, lacking: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    orchestrator = CommandOrchestrator(CONFIG)
    before = dict(vars(orchestrator)), dict(vars(orchestrator._executor))
    monkeypatch.delattr(cmdorc, name)
    if value is not None:
        monkeypatch.setattr(cmdorc, name, value, raising=False)
    assert observe(orchestrator, ignore) is None
    assert (dict(vars(orchestrator)), dict(vars(orchestrator._executor))) == before
    assert lacking in caplog.text


class Standin:
    """As much of a Telemetry as ``instrument`` asks for."""

    listens = True
    made: list[Standin]

    def __init__(self, **options: Any) -> None:
        self.options, self.listening, self.calls = options, self.listens, list[str]()
        self.records: list[Any] = []
        self.made.append(self)

    @classmethod
    def start(cls, application: Application, **options: Any) -> Standin:
        return cls(application=application, **options)

    @classmethod
    def off(cls) -> Standin:
        off = cls()
        off.listening = False
        return off

    def hears(self, hook: str) -> bool:
        return True

    def fire(self, hook: str, record: object) -> None:
        self.calls.append(hook)
        self.records.append(record)

    def close(self) -> None:
        self.calls.append("close")

    async def aclose(self) -> None:
        self.calls.append("aclose")


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> type[Standin]:
    standin = type("Standin", (Standin,), {"made": []})
    monkeypatch.setattr("cmdorc_telemetry.instrumentation.Telemetry", standin)
    return standin


async def test_instrument(telemetry: type[Standin]) -> None:
    orchestrator, plugin = CommandOrchestrator(CONFIG), object()
    config: Any = SimpleNamespace(source=Path("/somewhere/ci.toml"))
    found: Any = instrument(orchestrator, config=config, plugins=[plugin])
    assert found.options == {
        "config": config,
        "plugins": [plugin],
        "reporters": [],
        "application": CMDORC._replace(version=cmdorc.__version__),
    }
    assert found.records[0].config_name == "ci.toml"
    await (await orchestrator.run_command("A")).wait()
    await orchestrator.shutdown()
    assert (found.calls[0], found.calls[-2:]) == ("cmdorc_startup", ["cmdorc_shutdown", "aclose"])


async def test_instrumented_twice(telemetry: type[Standin]) -> None:
    orchestrator = CommandOrchestrator(CONFIG)
    found: Any = instrument(orchestrator)
    assert found.records[0].config_name is None
    wrapped = dict(vars(orchestrator)), dict(vars(orchestrator._executor))
    assert instrument(orchestrator, plugins=[object()]) is found
    assert (dict(vars(orchestrator)), dict(vars(orchestrator._executor))) == wrapped
    await (await orchestrator.run_command("A")).wait()
    await orchestrator.shutdown()
    assert [run.command_name for run in found.records if isinstance(run, CompletedRun)] == ["A"]
    assert [made is found for made in telemetry.made] == [True]


async def test_telemetry_orchestrator(telemetry: type[Standin]) -> None:
    executor, reporter = MockExecutor(), object()
    config: Any = SimpleNamespace(source=None)
    orchestrator: Any = TelemetryOrchestrator(CONFIG, executor, telemetry_reporter=reporter, config=config)
    assert isinstance(orchestrator, CommandOrchestrator)
    assert orchestrator.telemetry.options["reporters"] == [reporter]
    assert instrument(orchestrator) is orchestrator.telemetry
    async with orchestrator:
        await (await orchestrator.run_command("A")).wait()
    assert orchestrator.telemetry.calls[-1] == "aclose"


def test_nothing_is_wrapped_where_nobody_listens(telemetry: type[Standin]) -> None:
    telemetry.listens = False
    orchestrator = CommandOrchestrator(CONFIG)
    before = dict(vars(orchestrator)), dict(vars(orchestrator._executor))
    assert instrument(orchestrator).listening is False
    assert (dict(vars(orchestrator)), dict(vars(orchestrator._executor))) == before


def test_instrument_declines(telemetry: type[Standin]) -> None:
    orchestrator = Synchronous(CONFIG)
    before = dict(vars(orchestrator))
    found: Any = instrument(orchestrator)
    assert (found.listening, found.calls) == (False, [])
    assert telemetry.made[0].calls == ["close"]
    assert vars(orchestrator) == before


OFF = """
import sys
from cmdorc import CommandConfig, CommandOrchestrator, RunnerConfig
from cmdorc_telemetry.instrumentation import TelemetryOrchestrator, instrument
config = RunnerConfig(commands=[CommandConfig(name="A", command="true", triggers=[])])
plain, instrumented = CommandOrchestrator(config), CommandOrchestrator(config)
instrument(instrumented)
assert vars(plain).keys() == vars(instrumented).keys() == vars(TelemetryOrchestrator(config)).keys() - {"telemetry"}
assert vars(plain._executor).keys() == vars(instrumented._executor).keys()
print(*sorted({"msgspec", "pluggy", "cmdorc_telemetry.types", "cmdorc_telemetry.watch"} & set(sys.modules)))
"""


def test_off_imports_nothing_more(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CMDORC_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OFF], env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")
