"""Every trigger event is reported with what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from cmdorc import (
    CommandConfig,
    CommandExecutor,
    CommandOrchestrator,
    MockExecutor,
    OrchestratorShutdownError,
    RunnerConfig,
    TriggerContext,
    TriggerCycleError,
)

from cmdorc_telemetry.instrumentation import observe
from cmdorc_telemetry.lifecycle import CompletedRun, Session, Trigger


class Watched:
    """An observed orchestrator and the triggers that were reported."""

    def __init__(self, *commands: CommandConfig, executor: CommandExecutor | None = None) -> None:
        self.orchestrator = CommandOrchestrator(RunnerConfig(commands=list(commands)), executor or MockExecutor(0.01))
        self.records: list[Any] = []
        assert observe(self.orchestrator, lambda hook, record: self.records.append(record))

    @property
    def triggers(self) -> list[tuple[str, str, int, int]]:
        triggers = [record for record in self.records if isinstance(record, Trigger)]
        return [(each.name, each.outcome, each.chain_depth, each.runs_started) for each in triggers]

    async def quiet(self, count: int) -> None:
        """Wait until ``count`` runs are over and cmdorc has told everybody about them."""
        deadline = time.monotonic() + 10
        while self.orchestrator.get_all_active_handles() or self.orchestrator._handles or len(self.runs) < count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)

    @property
    def runs(self) -> list[CompletedRun]:
        return [record for record in self.records if isinstance(record, CompletedRun)]


@pytest.fixture(autouse=True)
def _nothing_went_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What goes wrong while observing is only logged: no test may overlook it."""
    yield
    assert [record for record in caplog.get_records("call") if record.name == "cmdorc_telemetry"] == []


def command(name: str, *triggers: str, **settings: Any) -> CommandConfig:
    return CommandConfig(name=name, command="true", triggers=list(triggers), **settings)


async def test_a_chain_and_what_it_starts() -> None:
    watched = Watched(command("A", "go"), command("B", "command_success:A"), command("C", "command_success:A"))
    assert await watched.orchestrator.trigger("go") is None
    await watched.quiet(3)
    assert watched.triggers[:3] == [
        ("go", "ran", 0, 1),
        ("command_started:A", "nothing", 1, 0),
        ("command_success:A", "ran", 2, 2),
    ]
    rest = {f"command_{what}:{name}" for what in ("started", "success") for name in "BC"}
    assert {trigger[0] for trigger in watched.triggers[3:]} == rest
    # B and C share one context: each may find the other's events before its own.
    assert sorted(trigger[2] for trigger in watched.triggers[3:]) == [3, 4, 5, 6]
    a, b, c = watched.runs
    assert (a.manual, a.trigger_event, a.trigger_chain) == (False, "go", ("go",))
    assert b.trigger_event == c.trigger_event == "command_success:A"
    assert b.trigger_chain == ("go", "command_started:A", "command_success:A")
    assert {record.session_id for record in watched.records[1:]} == {watched.records[0].id}


async def test_nothing_and_keyword_arguments() -> None:
    watched = Watched(command("A", "go"))
    await watched.orchestrator.trigger(event_name="nobody", context=TriggerContext(seen={"x", "y"}, history=["x", "y"]))
    assert watched.triggers == [("nobody", "nothing", 2, 0)]


async def test_the_callers_context_stays_as_it_was() -> None:
    watched, before = Watched(command("A", "go")), dict(copy_context())
    await watched.orchestrator.trigger("go")
    assert dict(copy_context()).items() == before.items()
    await watched.orchestrator.shutdown()


async def test_a_cycle_of_commands_ends_as_one() -> None:
    watched = Watched(command("A", "go", "command_success:B"), command("B", "command_success:A"))
    await watched.orchestrator.trigger("go")
    await watched.quiet(3)
    cycles = [trigger for trigger in watched.triggers if trigger[1] == "cycle"]
    assert [name for name, *_ in cycles] == ["command_started:A", "command_success:A"]
    assert all(depth > 2 and started == 0 for _, _, depth, started in cycles)
    assert [run.command_name for run in watched.runs] == ["A", "B", "A"]


async def test_a_cycle_is_raised_unchanged() -> None:
    watched = Watched(command("A", "go"))
    with pytest.raises(TriggerCycleError) as raised:
        await watched.orchestrator.trigger("go", TriggerContext(seen={"go", "then"}, history=["go", "then"]))
    assert (raised.value.event_name, raised.value.cycle_path) == ("go", ["go", "then"])
    assert watched.triggers == [("go", "cycle", 2, 0)]


async def test_a_cycle_within_a_callback_is_not_the_outer_triggers() -> None:
    watched = Watched(command("A", "other"))

    async def again(handle: Any, context: TriggerContext) -> None:
        await watched.orchestrator.trigger("inner", TriggerContext(seen={"inner"}, history=["inner"]))

    watched.orchestrator.on_event("outer", again)
    with pytest.raises(TriggerCycleError):
        await watched.orchestrator.trigger("outer")
    assert watched.triggers == [("inner", "cycle", 1, 0), ("outer", "nothing", 0, 0)]


async def test_refused_after_shutdown() -> None:
    watched = Watched(command("A", "go"))
    await watched.orchestrator.shutdown()
    with pytest.raises(OrchestratorShutdownError):
        await watched.orchestrator.trigger("go")
    assert watched.triggers == [("orchestrator_shutdown", "nothing", 0, 0), ("go", "refused", 0, 0)]


async def test_startup_and_shutdown_events_are_the_first_of_their_chains() -> None:
    watched = Watched(command("A", "orchestrator_started"), command("Z", "orchestrator_shutdown"))
    async with watched.orchestrator:
        await watched.quiet(1)
    depths = {name: (outcome, depth, started) for name, outcome, depth, started in watched.triggers}
    assert depths["orchestrator_started"] == ("ran", 0, 1)
    assert depths["command_started:A"] == ("nothing", 1, 0)
    assert depths["orchestrator_shutdown"] == ("ran", 0, 1)
    assert [run.command_name for run in watched.runs] == ["A", "Z"]


async def test_a_callback_that_raises() -> None:
    watched = Watched(command("A", "go"))
    fault = RuntimeError("the user's own")

    def callback(handle: Any, context: Any) -> None:
        raise fault

    watched.orchestrator.on_event("go", callback)
    with pytest.raises(RuntimeError) as raised:
        await watched.orchestrator.trigger("go")
    assert raised.value is fault
    assert watched.triggers[0] == ("go", "ran", 0, 1)


async def test_runs_that_a_callback_starts_are_not_the_triggers() -> None:
    watched = Watched(command("A", "go"), command("B", "deep"), command("C"))

    async def callback(handle: Any, context: Any) -> None:
        await watched.orchestrator.trigger("deep")
        await watched.orchestrator.run_command("C")

    watched.orchestrator.on_event("go", callback)
    await watched.orchestrator.trigger("go")
    await watched.quiet(3)
    assert [trigger for trigger in watched.triggers if ":" not in trigger[0]] == [
        ("deep", "ran", 0, 1),
        ("go", "ran", 0, 1),
    ]
    assert {run.command_name: run.manual for run in watched.runs} == {"A": False, "B": False, "C": True}


async def test_triggers_at_once_count_their_own_runs() -> None:
    commands = [command(f"C{number}", f"go{number % 3}", max_concurrent=0) for number in range(6)]
    watched = Watched(*commands)
    await asyncio.gather(*(watched.orchestrator.trigger(f"go{number % 4}") for number in range(12)))
    await watched.quiet(18)
    assert sorted(trigger for trigger in watched.triggers if ":" not in trigger[0]) == sorted(
        [(f"go{number}", "ran", 0, 2) for number in (0, 1, 2)] * 3 + [("go3", "nothing", 0, 0)] * 3
    )


async def test_a_denied_run_is_not_started() -> None:
    watched = Watched(command("A", "go", on_retrigger="ignore"), executor=MockExecutor(delay=20))
    await watched.orchestrator.trigger("go")
    await watched.orchestrator.trigger("go")
    await watched.orchestrator.shutdown()
    assert [trigger for trigger in watched.triggers if trigger[0] == "go"] == [
        ("go", "ran", 0, 1),
        ("go", "nothing", 0, 0),
    ]


async def test_a_trigger_that_cancels() -> None:
    watched = Watched(command("A", "go", cancel_on_triggers=["stop"]), executor=MockExecutor(delay=20))
    await watched.orchestrator.trigger("go")
    await watched.orchestrator.trigger("stop")
    await watched.quiet(1)
    assert ("stop", "nothing", 0, 0) in watched.triggers
    assert [(run.command_name, run.state) for run in watched.runs] == [("A", "cancelled")]


async def test_wrong_calls_fail_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(command("A", "go"))
    with pytest.raises(TypeError, match="event_name"):
        await watched.orchestrator.trigger()  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="seen"):
        await watched.orchestrator.trigger("go", context="chain")  # type: ignore[arg-type]
    assert watched.triggers == [("go", "nothing", 0, 0)]
    caplog.clear()


async def test_a_trigger_destroyed_half_way() -> None:
    watched = Watched(command("A", "go"))
    calls: list[Any] = []

    async def wait_for_ever(handle: Any, context: Any) -> None:
        calls.append(context)
        await asyncio.Event().wait()

    watched.orchestrator.on_event("go", wait_for_ever)
    coroutine = watched.orchestrator.trigger("go")
    asyncio.get_running_loop().call_soon(coroutine.send, None)  # as a task would, but in a context of its own
    while not calls:
        await asyncio.sleep(0)
    coroutine.close()
    assert watched.triggers[-1] == ("go", "ran", 0, 1)
    await watched.quiet(1)


async def test_sessions_come_first_and_last() -> None:
    watched = Watched(command("A", "go"))
    await watched.orchestrator.trigger("go")
    await watched.orchestrator.shutdown()
    assert [type(record) for record in watched.records].count(Session) == 2
    assert isinstance(watched.records[0], Session)
    assert isinstance(watched.records[-1], Session)
