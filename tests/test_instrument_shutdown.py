"""Sessions: reported when observed and when shut down; what is in flight then is reported before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import cmdorc
import pytest
from cmdorc import (
    CommandConfig,
    CommandExecutor,
    CommandOrchestrator,
    LocalSubprocessExecutor,
    MockExecutor,
    RunHandle,
    RunnerConfig,
    RunState,
)

from cmdorc_telemetry.instrumentation import observe
from cmdorc_telemetry.lifecycle import CompletedRun, Session

SLEEP = CommandConfig(name="Sleep", command="exec sleep 20", triggers=[], max_concurrent=0)
LAST = CommandConfig(name="Last", command="true", triggers=["orchestrator_shutdown"])


class Watched:
    """An observed orchestrator, what was reported, and how often its farewell was said."""

    def __init__(self, *commands: CommandConfig, executor: CommandExecutor | None = None, **options: Any) -> None:
        self.orchestrator = CommandOrchestrator(RunnerConfig(commands=list(commands or (SLEEP,))), executor)
        self.records: list[Any] = []
        self.farewells = 0
        assert observe(self.orchestrator, self.fire, farewell=self.farewell, **options)

    def fire(self, hook: str, record: Any) -> None:
        if hook != "cmdorc_trigger":
            self.records.append(record)

    async def farewell(self) -> None:
        await asyncio.sleep(0)
        assert isinstance(self.records[-1], Session), "all is reported by then"
        self.farewells += 1

    async def running(self) -> RunHandle:
        handle = await self.orchestrator.run_command("Sleep")
        deadline = time.monotonic() + 10
        while handle.state is RunState.PENDING:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)
        return handle

    @property
    def said(self) -> list[tuple[str, bool] | str]:
        """State and ``final`` of the runs, and the sessions in their places."""
        return [(each.state, each.final) if isinstance(each, CompletedRun) else "session" for each in self.records]


@pytest.fixture(autouse=True)
def _nothing_went_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What goes wrong while observing is only logged: no test may overlook it."""
    yield
    assert [record for record in caplog.get_records("call") if record.name == "cmdorc_telemetry"] == []


async def test_session() -> None:
    watched = Watched(
        CommandConfig(name="A", command="true", triggers=["z", "b"], on_retrigger="ignore"),
        CommandConfig(name="B", command="true", triggers=["b", "command_success:A"]),
        CommandConfig(name="C", command="true", triggers=[]),
        config_name="ci.toml",
    )
    (start,) = watched.records
    assert isinstance(start, Session)
    assert (start.command_count, start.has_triggers, start.trigger_count) == (3, True, 3)
    assert start.trigger_patterns == ("b", "command_success:A", "z")
    assert start.retrigger_policies == ("ignore", "cancel_and_restart", "cancel_and_restart")
    assert (start.executor_type, start.cmdorc_version) == ("local_subprocess", cmdorc.__version__)
    assert (start.config_name, start.uptime) == ("ci.toml", 0.0)
    assert abs(start.started_at - time.time()) < 5
    watched.orchestrator.remove_command("C")
    assert await watched.orchestrator.shutdown() == {
        "cancelled_count": 0,
        "completed_count": 0,
        "timeout_expired": False,
        "shutdown_commands_run": 0,
    }
    _, stop = watched.records
    assert (stop.id, stop.started_at, stop.command_count) == (start.id, start.started_at, 2)
    assert 0 < stop.uptime < 5
    assert watched.farewells == 1


async def test_a_session_without_triggers_nor_a_runtime_that_tells_the_policies() -> None:
    class Private(CommandOrchestrator):
        def list_commands(self) -> list[str]:
            return ["Sleep"]

        def get_trigger_graph(self) -> dict[str, list[str]]:
            return {}

    records: list[Any] = []
    orchestrator = Private(RunnerConfig(commands=[SLEEP]))
    del orchestrator._runtime
    assert observe(orchestrator, lambda hook, record: records.append(record))
    assert (records[0].has_triggers, records[0].trigger_patterns, records[0].retrigger_policies) == (False, (), ())
    assert records[0].config_name is None


@pytest.mark.parametrize(
    ("executor", "kind"),
    [
        (type("Streaming", (LocalSubprocessExecutor,), {})(), "local_subprocess"),
        (MockExecutor(), "mock"),
        (type("Remote", (CommandExecutor,), {"start_run": None, "cancel_run": None})(), "custom"),
    ],
)
async def test_executor_type(executor: CommandExecutor, kind: str) -> None:
    assert Watched(executor=executor).records[0].executor_type == kind


async def test_runs_in_flight_are_cancelled() -> None:
    watched = Watched()
    await watched.running()
    await watched.running()
    assert (await watched.orchestrator.shutdown())["cancelled_count"] == 2
    assert watched.said == ["session", ("cancelled", True), ("cancelled", True), "session"]


async def test_runs_in_flight_are_waited_for() -> None:
    watched = Watched(CommandConfig(name="Sleep", command="exec sleep 0.1", triggers=[]))
    await watched.running()
    assert (await watched.orchestrator.shutdown(cancel_running=False))["completed_count"] == 1
    assert watched.said == ["session", ("success", True), "session"]


async def test_runs_abandoned_when_the_time_is_up() -> None:
    watched = Watched()
    handles = [await watched.running(), await watched.running()]
    answer = await watched.orchestrator.shutdown(timeout=0.05, cancel_running=False)
    assert answer["timeout_expired"] is True
    assert watched.said == ["session", ("running", False), ("running", False), "session"]
    assert [run.concurrent_runs for run in watched.records[1:3]] == [2, 2]
    assert 0.05 <= watched.records[1].duration < 5
    handles[0]._result.mark_failed("late")
    await asyncio.sleep(0)
    assert len(watched.said) == 4
    watched.orchestrator.add_command(LAST)
    await watched.orchestrator.trigger("orchestrator_shutdown")
    (handle,) = watched.orchestrator.get_all_active_handles()
    await handle.wait()
    assert watched.records[4].concurrent_runs == 1, "the abandoned ones are live no more"


async def test_runs_abandoned_before_they_ran() -> None:
    class Queueing(MockExecutor):
        async def start_run(self, result: Any, resolved: Any) -> None: ...

    watched = Watched(executor=Queueing())
    await watched.orchestrator.run_command("Sleep")
    await watched.orchestrator.shutdown(timeout=0.01, cancel_running=False)
    assert watched.said == ["session", ("pending", False), "session"]
    assert watched.records[1].duration == 0.0


async def test_a_cancel_in_flight_when_shutdown_is_over() -> None:
    class Stuck(MockExecutor):
        async def cancel_run(self, result: Any, comment: str | None = None) -> None:
            result.mark_failed("signalled")
            await asyncio.Event().wait()

    watched = Watched(executor=Stuck(delay=20))
    handle = await watched.running()
    cancel = asyncio.create_task(watched.orchestrator.cancel_run(handle.run_id))
    while not handle.is_finalized:
        await asyncio.sleep(0)
    await watched.orchestrator.shutdown(timeout=0.01, cancel_running=False)
    assert watched.said == ["session", ("failed", True), "session"]
    cancel.cancel()
    await asyncio.gather(cancel, return_exceptions=True)
    await asyncio.sleep(0)
    assert len(watched.said) == 3


async def test_a_cleanup_that_finalises_twice() -> None:
    class Careful(MockExecutor):
        async def cleanup(self) -> None:
            for result, _ in self.started:
                result.mark_failed("signalled")
                await asyncio.sleep(0.01)
                result.mark_cancelled("cleaned up")

    watched = Watched(executor=Careful(delay=20))
    await watched.running()
    await watched.orchestrator.shutdown(timeout=0.01, cancel_running=False)
    assert watched.said == ["session", ("cancelled", True), "session"]


async def test_an_executor_cleaned_up_by_hand_leaves_its_runs_to_cmdorc() -> None:
    """They are still live for cmdorc, which cancels them when it is shut down."""
    watched = Watched()
    await watched.running()
    await watched.orchestrator._executor.cleanup()
    assert watched.said == ["session"]
    await watched.orchestrator.shutdown()
    assert watched.said == ["session", ("cancelled", True), "session"]


async def test_cleanup_of_the_orchestrator() -> None:
    watched = Watched()
    await watched.running()
    await watched.orchestrator.cleanup()
    assert watched.said == ["session", ("cancelled", True), "session"]
    assert watched.farewells == 1


async def test_shutdown_twice_and_at_once() -> None:
    watched = Watched()
    await watched.running()
    await asyncio.gather(watched.orchestrator.shutdown(), watched.orchestrator.shutdown())
    await watched.orchestrator.shutdown()
    assert watched.said == ["session", ("cancelled", True), "session"]
    assert watched.farewells == 1


async def test_shutdown_that_raises() -> None:
    class Broken(MockExecutor):
        async def cleanup(self) -> None:
            raise OSError("no")

    watched = Watched(executor=Broken())
    with pytest.raises(OSError, match="no"):
        await watched.orchestrator.shutdown()
    assert watched.said == ["session", "session"]
    assert watched.farewells == 1


async def test_shutdown_given_up() -> None:
    watched = Watched()
    handle = await watched.running()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(watched.orchestrator.shutdown(cancel_running=False), 0.05)
    assert watched.said == ["session", ("running", False), "session"]
    await watched.orchestrator.cancel_run(handle.run_id)
    assert len(watched.said) == 3


async def test_shutdown_destroyed_half_way() -> None:
    watched = Watched(executor=MockExecutor(delay=20))
    await watched.running()
    coroutine = watched.orchestrator.shutdown(cancel_running=False)
    asyncio.get_running_loop().call_soon(coroutine.send, None)
    while not watched.orchestrator._is_shutdown:
        await asyncio.sleep(0)
    coroutine.close()
    assert watched.said == ["session", ("running", False), "session"]
    assert watched.farewells == 0
    await watched.orchestrator._executor.cleanup()


async def test_a_farewell_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def farewell() -> None:
        raise OSError("disk full")

    orchestrator = CommandOrchestrator(RunnerConfig(commands=[SLEEP]))
    assert observe(orchestrator, lambda hook, record: None, farewell=farewell)
    assert (await orchestrator.shutdown())["timeout_expired"] is False
    assert "telemetry could not be closed: OSError at test_instrument_shutdown.py:" in caplog.text
    assert "disk full" not in caplog.text
    caplog.clear()


async def test_runs_after_shutdown_are_reported_too() -> None:
    """cmdorc lets this one trigger through."""
    watched = Watched(LAST)
    await watched.orchestrator.shutdown()
    await watched.orchestrator.trigger("orchestrator_shutdown")
    (handle,) = watched.orchestrator.get_all_active_handles()
    await handle.wait()
    assert watched.said == ["session", ("success", True), "session", ("success", True)]


async def test_one_orchestrators_shutdown_leaves_the_other_on_the_same_executor_its_report() -> None:
    executor = LocalSubprocessExecutor()
    one, two = Watched(executor=executor), Watched(executor=executor)
    await one.running()
    await two.running()
    await one.orchestrator.shutdown()
    assert one.said == ["session", ("cancelled", True), "session"]
    assert two.said == ["session"]
    await two.orchestrator.shutdown()
    assert two.said == ["session", ("cancelled", True), "session"]
