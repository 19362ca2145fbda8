"""Every run that reached a final state is reported once, with its last state."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from cmdorc import (
    CommandConfig,
    CommandExecutor,
    CommandOrchestrator,
    ConcurrencyLimitError,
    ExecutorError,
    LocalSubprocessExecutor,
    MockExecutor,
    OutputStorageConfig,
    RunHandle,
    RunnerConfig,
    RunResult,
    RunState,
)
from msgspec import Struct

from cmdorc_telemetry.instrumentation import observe
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.watch import Run


class Watched:
    """An observed orchestrator and the runs that were reported."""

    def __init__(self, *commands: CommandConfig, executor: CommandExecutor | None = None, **config: Any) -> None:
        self.orchestrator = CommandOrchestrator(RunnerConfig(commands=list(commands), **config), executor=executor)
        self.runs: list[CompletedRun] = []
        assert observe(self.orchestrator, self.fire)

    def fire(self, hook: str, record: Struct) -> None:
        if isinstance(record, CompletedRun):
            assert hook == "cmdorc_completed"
            self.runs.append(record)

    async def running(self, name: str) -> RunHandle:
        handle = await self.orchestrator.run_command(name)
        await until(lambda: handle.state is not RunState.PENDING)
        return handle

    async def reported(self, count: int = 1) -> list[tuple[str, str, bool]]:
        """Name, state and ``final`` of the runs, once ``count`` of them are there and all else is quiet."""
        await until(lambda: len(self.runs) >= count)
        await self.orchestrator.shutdown(timeout=5)
        assert len({run.run_id for run in self.runs}) == len(self.runs)
        return [(run.command_name, run.state, run.final) for run in self.runs]


@pytest.fixture(autouse=True)
def _nothing_went_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What goes wrong while observing is only logged: no test may overlook it."""
    yield
    assert [record for record in caplog.get_records("call") if record.name == "cmdorc_telemetry"] == []


def command(name: str, line: str = "true", **settings: Any) -> CommandConfig:
    return CommandConfig(name=name, command=line, triggers=settings.pop("triggers", []), **settings)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def test_success_carries_what_is_known_of_the_run(tmp_path: Any) -> None:
    watched = Watched(command("Say", "echo one two", cwd=tmp_path), command("Long", "exec sleep 20"))
    await watched.running("Long")
    handle = await watched.running("Say")
    assert await watched.reported() == [("Say", "success", True), ("Long", "cancelled", True)]
    say, long = watched.runs
    assert (say.run_id, say.manual, say.trigger_event, say.trigger_chain) == (handle.run_id, True, None, ())
    assert (say.concurrent_runs, long.concurrent_runs) == (2, 1)
    assert (say.arg_count, say.cwd, say.timed_out) == (2, str(tmp_path), False)
    assert (long.arg_count, long.cwd) == (2, None)
    assert 0 < say.duration < long.duration < 10
    assert say.session_id == long.session_id != ""


async def test_a_reported_result_is_as_cmdorc_made_it() -> None:
    watched = Watched(command("Long", "exec sleep 20"))
    result, untouched = (await watched.running("Long"))._result, RunResult("Long")
    marks = {"mark_running", "mark_success", "mark_failed", "mark_cancelled"}
    assert set(vars(result)) - set(vars(untouched)) == marks
    untouched.mark_cancelled()
    await watched.orchestrator.cancel_all()
    await watched.reported()
    assert set(vars(result)) == set(vars(untouched))


async def test_what_was_remembered_of_a_run_goes_without_the_garbage_collector() -> None:
    """It refers to the result, and thereby to all that the command printed."""
    watched = Watched(command("Say", "echo"))
    gc.collect()
    gc.disable()
    try:
        await watched.running("Say")
        await watched.reported()
        assert [each for each in gc.get_objects() if type(each) is Run] == []
    finally:
        gc.enable()


async def test_failure() -> None:
    watched = Watched(command("Fail", "exit 3"))
    await watched.running("Fail")
    assert await watched.reported() == [("Fail", "failed", True)]
    assert watched.runs[0].timed_out is False


async def test_a_command_that_cannot_be_launched() -> None:
    watched = Watched(command("Nowhere", cwd="/nonexistent/directory"))
    await watched.orchestrator.run_command("Nowhere")
    assert await watched.reported() == [("Nowhere", "failed", True)]
    assert watched.runs[0].duration == 0.0


async def test_timeout() -> None:
    watched = Watched(command("Slow", "exec sleep 20", timeout_secs=1))
    await watched.running("Slow")
    assert await watched.reported() == [("Slow", "failed", True)]
    assert watched.runs[0].timed_out is True
    assert 1 <= watched.runs[0].duration < 5


@pytest.mark.parametrize("error", [ExecutorError("no"), OSError("no")])
async def test_start_run_that_raises(error: Exception) -> None:
    class Refusing(LocalSubprocessExecutor):
        async def start_run(self, result: Any, resolved: Any) -> None:
            raise error

    watched = Watched(command("Never"), executor=Refusing())
    with pytest.raises(type(error)) as raised:
        await watched.orchestrator.run_command("Never")
    assert raised.value is error
    assert await watched.reported() == [("Never", "failed", True)]


async def test_a_cancel_that_finalises_twice_is_reported_once_as_cancelled() -> None:
    watched = Watched(command("Long", "exec sleep 20"))
    handle = await watched.running("Long")
    marks: list[RunState] = []
    handle._result._completion_callback = lambda: marks.append(handle.state)
    assert await watched.orchestrator.cancel_run(handle.run_id, "enough") is True
    assert marks[-1] is RunState.CANCELLED
    assert len(marks) == 2 or sys.version_info >= (3, 12), "asyncio.wait_for takes a tick less there"
    assert watched.runs == []
    await until(lambda: watched.runs)
    assert [run.state for run in watched.runs] == ["cancelled"]


async def test_several_cancels_of_one_run_at_once() -> None:
    watched = Watched(command("Long", "exec sleep 20"))
    handle = await watched.running("Long")
    await asyncio.gather(*(watched.orchestrator.cancel_run(handle.run_id) for _ in range(3)))
    assert await watched.reported() == [("Long", "cancelled", True)]


async def test_a_cancel_holds_no_other_run() -> None:
    class Patient(MockExecutor):
        async def cancel_run(self, result: Any, comment: str | None = None) -> None:
            result.mark_failed("signalled")
            await released.wait()
            result.mark_cancelled(comment)

    released, executor = asyncio.Event(), Patient(delay=20)
    watched = Watched(command("Held"), command("Free"), executor=executor)
    held = await watched.running("Held")
    cancel = asyncio.create_task(watched.orchestrator.cancel_run(held.run_id))
    await until(lambda: held.is_finalized)
    executor.delay = 0
    await watched.orchestrator.run_command("Free")
    await until(lambda: watched.runs)
    released.set()
    await cancel
    assert await watched.reported(2) == [("Free", "success", True), ("Held", "cancelled", True)]
    assert [run.concurrent_runs for run in watched.runs] == [1, 1]


async def test_a_cancel_before_the_process_is_there() -> None:
    watched = Watched(command("Long", "exec sleep 20"))
    handle = await watched.orchestrator.run_command("Long")
    await watched.orchestrator.cancel_run(handle.run_id)
    assert await watched.reported() == [("Long", "cancelled", True)]
    assert watched.runs[0].duration == 0.0


async def test_a_cancel_of_a_run_that_is_over_changes_nothing() -> None:
    watched = Watched(command("Say", "echo"))
    handle = await watched.running("Say")
    await handle.wait()
    await watched.orchestrator._executor.cancel_run(handle._result)
    assert await watched.reported() == [("Say", "success", True)]


async def test_a_cancel_that_races_with_the_natural_end() -> None:
    """Whatever cmdorc makes of it, the last state is reported."""
    watched = Watched(command("Quick", "exec sleep 0.02", max_concurrent=0))
    handles = [await watched.running("Quick") for _ in range(12)]

    async def cancel(number: int, handle: RunHandle) -> None:
        await asyncio.sleep(number / 500)
        await watched.orchestrator.cancel_run(handle.run_id)

    await asyncio.gather(*(cancel(number, handle) for number, handle in enumerate(handles)))
    await watched.reported(12)
    assert {run.run_id: run.state for run in watched.runs} == {h.run_id: h.state.value for h in handles}


async def test_a_cancel_that_comes_between_the_end_and_its_report() -> None:
    class Eager(LocalSubprocessExecutor):
        async def cancel_run(self, result: Any, comment: str | None = None) -> None:
            await asyncio.sleep(0)  # a report that was already on its way would be made here
            result.mark_cancelled(comment)

    watched = Watched(command("Long", "exec sleep 20"), executor=Eager())
    handle = await watched.running("Long")
    handle._result.mark_failed("first")
    await watched.orchestrator.cancel_run(handle.run_id)
    assert await watched.reported() == [("Long", "cancelled", True)]


async def test_retrigger_cancels_and_restarts() -> None:
    watched = Watched(command("Again", "exec sleep 20", on_retrigger="cancel_and_restart"))
    first, second = await watched.running("Again"), await watched.running("Again")
    assert await watched.reported() == [("Again", "cancelled", True)] * 2
    assert [run.run_id for run in watched.runs] == [first.run_id, second.run_id]
    assert [run.concurrent_runs for run in watched.runs] == [1, 1]


async def test_retrigger_ignored() -> None:
    watched = Watched(command("Once", "exec sleep 20", on_retrigger="ignore"))
    first = await watched.running("Once")
    with pytest.raises(ConcurrencyLimitError):
        await watched.orchestrator.run_command("Once")
    await watched.orchestrator.cancel_all()
    assert await watched.reported() == [("Once", "cancelled", True)]
    assert watched.runs[0].run_id == first.run_id


async def test_an_expired_wait_kills_cmdorcs_monitor_but_not_the_report() -> None:
    watched = Watched(command("Slow", "exec sleep 0.2"))
    handle = await watched.running("Slow")
    with pytest.raises(asyncio.TimeoutError):
        await handle.wait(timeout=0.02)
    await until(lambda: watched.orchestrator.get_handle_by_run_id(handle.run_id) is None)
    assert watched.runs == []
    assert await watched.reported() == [("Slow", "success", True)]


async def test_concurrent_runs_count_down() -> None:
    watched = Watched(command("Many", "exec sleep 20", max_concurrent=0))
    for _ in range(3):
        await watched.running("Many")
    assert await watched.orchestrator.cancel_command("Many") == 3
    await watched.reported(3)
    assert [run.concurrent_runs for run in watched.runs] == [3, 2, 1]


async def test_a_run_cancelled_before_it_was_started_is_reported_with_what_it_came_to() -> None:
    """cmdorc starts it all the same, since it looks only before it has a handle."""
    watched = Watched(command("Zombie", "echo"))
    async with watched.orchestrator._handles_lock:
        start = asyncio.create_task(watched.orchestrator.run_command("Zombie"))
        await until(lambda: watched.orchestrator._runtime.get_active_runs("Zombie"))
        await watched.orchestrator.cancel_command("Zombie")
    handle = await start
    assert handle.state is RunState.CANCELLED
    assert await watched.reported() == [("Zombie", "success", True)]


@pytest.mark.parametrize(("fails", "state"), [(False, "success"), (True, "failed")])
async def test_mock_executor(fails: bool, state: str) -> None:
    watched = Watched(command("Mock"), executor=MockExecutor(should_fail=fails))
    await watched.orchestrator.run_command("Mock")
    assert await watched.reported() == [("Mock", state, True)]


async def test_mock_executor_cancelled() -> None:
    watched = Watched(command("Mock"), executor=MockExecutor(delay=20))
    handle = await watched.running("Mock")
    await watched.orchestrator.cancel_run(handle.run_id)
    assert await watched.reported() == [("Mock", "cancelled", True)]


class Custom(CommandExecutor):
    """Ends a run inside start_run, and starts it once more on the way."""

    async def start_run(self, result: Any, resolved: Any, again: bool = True) -> None:
        if again:
            return await self.start_run(result, resolved, again=False)
        result.resolved_command = None
        result.mark_running()
        result.mark_success()
        return None

    async def cancel_run(self, result: Any, comment: str | None = None) -> None: ...


async def test_custom_executor_that_ends_a_run_at_once() -> None:
    watched = Watched(command("Custom"), executor=Custom())
    handle = await watched.orchestrator.run_command("Custom")
    assert handle.is_finalized
    assert watched.runs == [], "one tick later, since cmdorc completes the result first"
    assert await watched.reported() == [("Custom", "success", True)]
    assert (watched.runs[0].arg_count, watched.runs[0].cwd, watched.runs[0].concurrent_runs) == (0, None, 1)
    assert not [name for name in vars(handle._result) if name.startswith("mark_")]


async def test_custom_executor_that_finalises_outside_the_loop() -> None:
    class Threaded(Custom):
        async def start_run(self, result: Any, resolved: Any, again: bool = True) -> None:
            thread = threading.Thread(target=result.mark_failed, args=("in a thread",))
            thread.start()
            thread.join()

    watched = Watched(command("Thread"), executor=Threaded())
    await watched.orchestrator.run_command("Thread")
    assert [run.state for run in watched.runs] == ["failed"], "there is no tick to wait for"
    assert await watched.reported() == [("Thread", "failed", True)]


async def test_what_others_put_on_a_result_stays() -> None:
    class Nosy(Custom):
        """Has its own hook on a result before the run starts, and another above the observer's."""

        def update_latest_run(self, result: Any) -> None:
            self.below = result.mark_failed = lambda *a: type(result).mark_failed(result, *a)

        async def start_run(self, result: Any, resolved: Any, again: bool = True) -> None:
            inner = result.mark_success
            self.above = result.mark_success = lambda: inner()  # noqa: PLW0108 - not the same object
            result.mark_running()
            result.mark_success()

    executor = Nosy()
    watched = Watched(command("Nosy"), executor=executor)
    handle = await watched.orchestrator.run_command("Nosy")
    await until(lambda: watched.runs)
    result = handle._result
    assert vars(result)["mark_failed"] is executor.below
    assert vars(result)["mark_success"] is executor.above
    assert not {"mark_running", "mark_cancelled"} & set(vars(result))
    result.mark_success()
    assert await watched.reported() == [("Nosy", "success", True)]


async def test_a_live_result_can_be_copied() -> None:
    watched = Watched(command("Long", "exec sleep 20"))
    handle = await watched.running("Long")
    handle._result._completion_callback = None  # cmdorc's own is bound to the loop
    twin = copy.deepcopy(handle._result)
    assert twin == handle._result
    await watched.orchestrator.cancel_all()
    assert await watched.reported() == [("Long", "cancelled", True)]


async def test_output_files_are_written_as_ever(tmp_path: Any) -> None:
    storage = OutputStorageConfig(directory=str(tmp_path), keep_history=5)
    watched = Watched(command("Keep", "echo kept"), output_storage=storage)
    handle = await watched.running("Keep")
    assert await watched.reported() == [("Keep", "success", True)]
    assert handle.output_file is not None
    assert handle.output_file.read_text() == "kept\n"


async def test_a_shared_executor_reports_each_run_to_its_own_orchestrator() -> None:
    executor = LocalSubprocessExecutor()
    one, two = Watched(command("One"), executor=executor), Watched(command("Two"), executor=executor)
    stranger = CommandOrchestrator(RunnerConfig(commands=[command("Three")]), executor=executor)
    for orchestrator, name in ((one.orchestrator, "One"), (two.orchestrator, "Two"), (stranger, "Three")):
        await (await orchestrator.run_command(name)).wait()
    assert (await one.reported(), await two.reported()) == ([("One", "success", True)], [("Two", "success", True)])


async def test_a_shared_executor_keeps_no_orchestrator_and_piles_up_no_wrappers() -> None:
    executor = MockExecutor()
    gone = [weakref.ref(Watched(command("Gone"), executor=executor).orchestrator) for _ in range(3)]
    wrapped = executor.start_run
    watched = Watched(command("Stays"), executor=executor)
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]
    assert executor.start_run is wrapped
    await watched.orchestrator.run_command("Stays")
    assert await watched.reported() == [("Stays", "success", True)]


async def test_an_executor_with_a_mock_for_a_method() -> None:
    executor = MockExecutor()
    start = executor.start_run
    executor.start_run = mock.AsyncMock(side_effect=start)  # type: ignore[method-assign]
    watched = Watched(command("Mock"), executor=executor)
    await watched.orchestrator.run_command("Mock")
    assert await watched.reported() == [("Mock", "success", True)]


async def test_what_goes_wrong_while_observing_stays_away_from_cmdorc(caplog: pytest.LogCaptureFixture) -> None:
    orchestrator = CommandOrchestrator(RunnerConfig(commands=[command("Say", "echo")]))

    def fire(hook: str, record: Struct) -> None:
        raise OSError(hook)

    assert observe(orchestrator, fire)
    handle = await orchestrator.run_command("Say")
    assert (await handle.wait()).success is True
    await orchestrator.shutdown()
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    said = [record for record in caplog.records if record.name == "cmdorc_telemetry"]
    assert len(said) >= 3  # of startup, run and shutdown
    assert all(record.levelno == logging.WARNING for record in said)
    assert {re.sub(r"\d+", "N", record.getMessage()) for record in said} == {
        "something that cmdorc did could not be observed: OSError at test_instrument_runs.py:N"
    }  # and nothing of what the exception says: that may be a command's name
    assert not any(record.exc_info for record in said)
    caplog.clear()


def test_runs_in_several_loops() -> None:
    watched = Watched(command("Say", "echo"))

    async def once() -> None:
        await (await watched.orchestrator.run_command("Say")).wait()

    asyncio.run(once())
    asyncio.run(once())
    asyncio.run(watched.orchestrator.shutdown())
    assert [run.state for run in watched.runs] == ["success", "success"]


def test_a_result_finalised_after_its_loop_was_closed() -> None:
    class Detached(Custom):
        async def start_run(self, result: Any, resolved: Any, again: bool = True) -> None: ...

    watched = Watched(command("Late"), executor=Detached())
    loop = asyncio.new_event_loop()
    handle = loop.run_until_complete(watched.orchestrator.run_command("Late"))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    handle._result.mark_success()
    assert [(run.command_name, run.state) for run in watched.runs] == [("Late", "success")]
