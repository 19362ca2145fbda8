"""A chain is told from every other, and is over once: when its last run has ended and nothing is left of what it led
to."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cmdorc import (
    CommandConfig,
    CommandExecutor,
    CommandOrchestrator,
    ExecutorError,
    LocalSubprocessExecutor,
    OrchestratorShutdownError,
    RunnerConfig,
    TriggerContext,
    TriggerCycleError,
)

from cmdorc_telemetry import clock
from cmdorc_telemetry.chains import Call, Course
from cmdorc_telemetry.instrumentation import observe
from cmdorc_telemetry.lifecycle import Chain, CompletedRun, Trigger

LONG = "exec sleep 20"


class Watched:
    """An observed orchestrator whose chains are followed, and what was reported."""

    def __init__(self, *commands: CommandConfig, executor: CommandExecutor | None = None) -> None:
        self.orchestrator = CommandOrchestrator(RunnerConfig(commands=list(commands)), executor)
        self.records: list[Any] = []
        assert observe(self.orchestrator, lambda hook, record: self.records.append(record), chains=True)
        self.trigger, self.shutdown = self.orchestrator.trigger, self.orchestrator.shutdown

    @property
    def chains(self) -> list[Chain]:
        return [record for record in self.records if isinstance(record, Chain)]

    @property
    def ended(self) -> list[tuple[str, str | None, int]]:
        """Trigger, outcome and number of runs of the chains that are over."""
        return [(chain.trigger, chain.outcome, chain.runs) for chain in self.chains if chain.outcome]

    @property
    def runs(self) -> list[CompletedRun]:
        return [record for record in self.records if isinstance(record, CompletedRun)]

    @property
    def steps(self) -> list[tuple[int, str, str]]:
        """Number, command and state of the runs of chains."""
        return [(run.chain_index, run.command_name, run.state) for run in self.runs if run.chain]

    async def over(self, count: int = 1) -> list[tuple[str, str | None, int]]:
        """The chains that are over, once ``count`` of them are and cmdorc is done with every run."""
        await until(lambda: len(self.ended) >= count and not self.orchestrator._handles)
        sound(self.records)
        return self.ended

    async def running(self, *names: str) -> None:
        """Wait until these commands run."""
        await until(lambda: all(self.orchestrator.get_status(name).state == "running" for name in names))
        await until(lambda: len(self._live()) >= len(names))

    def _live(self) -> list[Any]:
        handles = self.orchestrator.get_all_active_handles()
        return [handle for handle in handles if handle.state.value == "running"]


def sound(records: list[Any]) -> None:
    """What is true of every chain that was reported."""
    chains: dict[str, list[Any]] = {}
    for record in records:
        found = record.chain if isinstance(record, CompletedRun) else record
        if isinstance(found, Chain):
            chains.setdefault(found.id, []).append(record)
    for told in chains.values():
        first, *steps, last = told
        assert isinstance(first, Chain), "it begins before its first run ends"
        assert isinstance(last, Chain), "it ends after its last run has"
        assert all(isinstance(step, CompletedRun) for step in steps), "both only once"
        assert first.outcome is None
        assert last.outcome is not None
        assert sorted(step.chain_index for step in steps) == list(range(last.runs)), "every run is one step"
        for step in steps:
            assert all(cause < step.chain_index for cause in step.chain_causes), "what led to it began before"
            assert len(set(step.chain_causes)) == len(step.chain_causes)
            if step.started_at is not None:
                assert last.started_at <= step.started_at
                assert step.started_at + step.duration <= last.started_at + last.duration + 1e-3
        assert len({each.started_at for each in (first, last)}) == 1
        assert last.failed + last.cancelled + sum(step.state == "success" for step in steps) == last.runs
        assert last.duration >= first.duration >= 0
        assert {each.session_id for each in told} == {last.session_id}
        assert last.session_id != ""


def command(name: str, *triggers: str, line: str = "true", **settings: Any) -> CommandConfig:
    return CommandConfig(name=name, command=line, triggers=list(triggers), **settings)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def _nothing_went_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What goes wrong while observing is only logged: no test may overlook it."""
    yield
    assert [record for record in caplog.get_records("call") if record.name == "cmdorc_telemetry"] == []


async def test_a_chain_from_its_first_run_to_its_end() -> None:
    watched = Watched(command("A", "go"), command("B", "command_success:A"), command("C", "command_success:B"))
    await watched.trigger("go")
    assert await watched.over() == [("go", "success", 3)]
    assert watched.steps == [(0, "A", "success"), (1, "B", "success"), (2, "C", "success")]
    begun, over = watched.chains
    assert (begun.id, begun.runs, begun.failed, begun.cancelled) == (over.id, 1, 0, 0)
    assert [type(record).__name__ for record in watched.records[1:3]] == ["Chain", "Trigger"], "before all else"
    await watched.shutdown()


async def test_a_trigger_that_starts_several_commands() -> None:
    watched = Watched(command("A", "go", line="exit 1"), command("B", "go"), command("C", "command_failed:A"))
    await watched.trigger("go")
    assert await watched.over() == [("go", "failure", 3)]
    assert {(0, "A", "failed"), (1, "B", "success"), (2, "C", "success")} == set(watched.steps)
    assert (watched.chains[-1].failed, watched.chains[-1].cancelled) == (1, 0)


async def test_two_ways_to_one_command_are_two_runs_of_it() -> None:
    watched = Watched(
        command("A", "go"), command("B", "command_success:A"), command("C", "command_success:A"),
        command("D", "command_success:B", "command_success:C", max_concurrent=0),
    )  # fmt: skip
    await watched.trigger("go")
    assert await watched.over() == [("go", "success", 5)]
    assert [name for _, name, _ in watched.steps].count("D") == 2


async def test_which_runs_led_to_which() -> None:
    watched = Watched(
        command("A", "go"), command("B", "command_success:A"), command("C", "command_success:A", line="sleep 0.3"),
        command("D", "command_success:B", "command_success:C", max_concurrent=0), command("E", "command_success:D"),
        command("F", "command_started:A"),
    )  # fmt: skip
    before = time.time()
    await watched.trigger("go")
    await watched.over()
    index = {name: [run.chain_index for run in sorted(watched.runs, key=lambda run: run.chain_index)
                    if run.command_name == name] for name in "ABCDEF"}  # fmt: skip
    causes = {run.chain_index: run.chain_causes for run in watched.runs}
    (a,), (b,), (c,), (d, again), (e,), (f,) = index.values()
    assert causes == {a: (), b: (a,), c: (a,), d: (b,), again: (c, b), e: (d,), f: (a,)}
    assert all(run.started_at is not None and before - 1 <= run.started_at <= time.time() + 1 for run in watched.runs)
    await watched.shutdown()


async def test_what_the_chains_own_trigger_starts_was_led_to_by_nothing() -> None:
    watched = Watched(command("A", "go"), command("B", "command_started:A", "again", max_concurrent=0))

    async def again(handle: Any, context: Any) -> None:
        await until(lambda: any(run.command_name == "B" for run in watched.runs))
        await watched.trigger("again", context)

    watched.orchestrator.on_event("go", again)
    await watched.trigger("go")
    await watched.over()
    told = sorted((run.chain_index, run.trigger_event, run.chain_causes) for run in watched.runs)
    assert told == [(0, "go", ()), (1, "command_started:A", (0,)), (2, "again", ())]
    await watched.shutdown()


async def test_a_chain_has_the_time_at_which_it_began_whatever_is_done_to_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(command("A", "go"), command("B", "command_success:A"))
    hours = [0]
    monkeypatch.setattr(clock, "wall", lambda: time.time() + hours[0] * 3600)
    for jump in (8, -3):  # as a machine that slept, in which the monotonic clock stood still; and as one set back
        hours[0] = jump
        before = clock.wall()
        watched.records.clear()
        await watched.trigger("go")
        hours[0] += 1
        await watched.over()
        assert {round((run.started_at or 0) - before) for run in watched.runs} == {0}, "within a chain no clock moves"
        assert round(watched.chains[-1].started_at - before) == 0
        await watched.orchestrator.run_command("A")
        await until(lambda: any(run.manual for run in watched.runs))
        (alone,) = (run for run in watched.runs if run.manual)
        assert round((alone.started_at or 0) - clock.wall()) == 0
        await watched.over(2)
    await watched.shutdown()


async def test_what_a_callback_triggers_was_led_to_by_what_the_callback_was_told_of() -> None:
    watched = Watched(command("A", "go"), command("B", "more"), command("C", "command_success:B"))

    async def more(handle: Any, context: Any) -> None:
        await watched.trigger("more", context)

    watched.orchestrator.on_event("command_success:A", more)
    await watched.trigger("go")
    await watched.over()
    assert {run.command_name: run.chain_causes for run in watched.runs} == {"A": (), "B": (0,), "C": (1,)}
    await watched.shutdown()


async def test_two_ways_to_one_command_where_the_second_cancels_the_first() -> None:
    watched = Watched(
        command("A", "go"), command("B", "command_success:A"), command("C", "command_success:B"),
        command("D", "command_success:A", "command_success:C", line=LONG),
    )  # fmt: skip
    await watched.trigger("go")
    await until(lambda: len(watched.steps) == 4)
    assert watched.ended == []
    await watched.orchestrator.cancel_command("D")
    assert await watched.over() == [("go", "cancelled", 5)]
    assert [state for _, name, state in watched.steps if name == "D"] == ["cancelled", "cancelled"]


async def test_a_cycle_ends_where_cmdorc_refuses_it() -> None:
    watched = Watched(command("A", "go", "command_success:B"), command("B", "command_success:A"))
    await watched.trigger("go")
    assert await watched.over() == [("go", "success", 3)]
    assert [name for _, name, _ in watched.steps] == ["A", "B", "A"]
    with pytest.raises(TriggerCycleError):
        await watched.trigger("go", TriggerContext(seen={"go"}, history=["go"]))
    assert len(watched.chains) == 2


async def test_a_loop_without_detection_is_one_chain_until_shutdown() -> None:
    watched = Watched(command("A", "go", "command_success:A", loop_detection=False))
    await watched.trigger("go")
    await until(lambda: len(watched.steps) > 50)
    assert watched.ended == []
    assert all(run.chain_causes == ((run.chain_index - 1,) if run.chain_index else ()) for run in watched.runs)
    gc.collect()
    assert sum(type(each) is Call for each in gc.get_objects()) < 10, "what is over is forgotten"
    await watched.shutdown()
    ((trigger, outcome, runs),) = watched.ended
    assert (trigger, outcome, runs) == ("go", "cancelled", len(watched.steps))
    sound(watched.records)


async def test_chains_at_once_that_begin_alike_are_told_apart() -> None:
    watched = Watched(
        command("A", "go", max_concurrent=0, line="sleep 0.01"), command("B", "command_success:A", max_concurrent=0)
    )
    await asyncio.gather(*(watched.trigger("go") for _ in range(8)))
    assert await watched.over(8) == [("go", "success", 2)] * 8
    assert len({chain.id for chain in watched.chains}) == 8
    assert sorted(watched.steps) == sorted([(0, "A", "success"), (1, "B", "success")] * 8)


async def test_a_chain_that_starts_nothing_is_none() -> None:
    watched = Watched(command("A", "go", on_retrigger="ignore", line=LONG))
    await watched.trigger("nobody")
    assert watched.chains == []
    await watched.trigger("go")
    await watched.trigger("go")  # denied
    assert len(watched.chains) == 1
    await watched.shutdown()
    with pytest.raises(OrchestratorShutdownError):
        await watched.trigger("go")
    assert watched.ended == [("go", "cancelled", 1)]


async def test_a_run_that_a_later_chain_restarts_is_cancelled_in_its_own() -> None:
    watched = Watched(command("A", "go", line=LONG), command("B", "command_cancelled:A", "command_failed:A"))
    await watched.trigger("go")
    await watched.running("A")
    await watched.trigger("go")
    await until(lambda: len(watched.runs) == 2 and watched.ended)
    first, second = (chain.id for chain in watched.chains if chain.outcome is None)
    assert [(run.command_name, run.state, run.chain and run.chain.id) for run in watched.runs] == [
        ("A", "cancelled", first), ("B", "success", first)
    ]  # fmt: skip
    assert watched.ended == [("go", "cancelled", 2)]
    await watched.shutdown()
    assert {chain.id: chain.outcome for chain in watched.chains if chain.outcome}[second] == "cancelled"


@pytest.mark.parametrize("loop_detection", [True, False])
async def test_a_command_started_by_hand_is_no_step_and_begins_chains_of_its_own(loop_detection: bool) -> None:
    watched = Watched(
        command("A", "go"), command("B", "command_success:A", line="sleep 0.2"),
        command("Hand", loop_detection=loop_detection),
        command("C", "command_success:Hand"),
    )  # fmt: skip

    async def by_hand(handle: Any, context: Any) -> None:
        await watched.orchestrator.run_command("Hand")

    watched.orchestrator.on_event("command_success:A", by_hand)
    await watched.trigger("go")
    assert sorted(await watched.over(2)) == [("command_success:Hand", "success", 1), ("go", "success", 2)]
    assert {run.command_name: run.chain and run.chain.trigger for run in watched.runs} == {
        "A": "go", "B": "go", "Hand": None, "C": "command_success:Hand"
    }  # fmt: skip


async def test_a_command_that_is_started_by_hand_and_by_the_chain() -> None:
    watched = Watched(command("A", "go", max_concurrent=0), command("B", "command_success:A", max_concurrent=0))

    async def by_hand(handle: Any, context: Any) -> None:
        await watched.orchestrator.run_command("A")

    watched.orchestrator.on_event("go", by_hand)
    await watched.trigger("go")
    assert sorted(await watched.over(2)) == [("command_success:A", "success", 1), ("go", "success", 2)]


async def test_a_callback_of_the_chain_leads_on_where_it_is_awaited_or_given_the_context() -> None:
    watched = Watched(command("A", "go"), *(command(name.upper(), name) for name in ("in", "later", "alone")))
    tasks: list[Any] = []

    async def callback(handle: Any, context: Any) -> None:
        await watched.trigger("in")
        tasks.append(asyncio.create_task(watched.trigger("later", context)))
        await asyncio.create_task(watched.trigger("alone"))

    watched.orchestrator.on_event("go", callback)
    await watched.trigger("go")
    assert sorted(await watched.over(2)) == [("alone", "success", 1), ("go", "success", 3)]


async def test_what_a_callback_of_its_last_event_begins_still_belongs_to_the_chain() -> None:
    watched = Watched(command("A", "go"), command("B", "later"))
    tasks: list[Any] = []
    watched.orchestrator.on_event("command_success:A", lambda handle, context: tasks.append(
        asyncio.create_task(watched.trigger("later", context))))  # fmt: skip
    await watched.trigger("go")
    assert await watched.over() == [("go", "success", 2)]
    assert watched.steps == [(0, "A", "success"), (1, "B", "success")]


async def test_somebody_elses_wrapper_that_takes_its_time_does_not_end_a_chain() -> None:
    watched = Watched(command("A", "go"), command("B", "command_success:A"))
    ours, waiting = watched.trigger, asyncio.Event()

    async def slow(event_name: str, context: Any = None) -> None:
        if event_name == "command_success:A":
            await waiting.wait()
        await ours(event_name, context)

    watched.orchestrator.trigger = slow  # type: ignore[method-assign]
    await ours("go")
    await until(lambda: watched.steps)
    for _ in range(20):
        await asyncio.sleep(0)
    assert watched.ended == []
    waiting.set()
    assert await watched.over() == [("go", "success", 2)]


async def test_a_failure_counts_for_more_than_what_was_cancelled() -> None:
    watched = Watched(
        command("Fail", "go", line="exit 1"), command("A", "go", line=LONG), command("B", "command_cancelled:A")
    )
    await watched.trigger("go")
    await watched.running("A")
    await watched.orchestrator.cancel_command("A")
    ((trigger, outcome, runs),) = await watched.over()
    assert (trigger, outcome) == ("go", "failure")
    assert runs in (2, 3)  # before Python 3.12 cmdorc says that A failed, so that B is not started
    assert (watched.chains[-1].failed, watched.chains[-1].cancelled) == (1, 1)


async def test_what_outlives_a_chain_begins_another() -> None:
    watched = Watched(command("A", "go", max_concurrent=0))
    going = asyncio.Event()
    tasks: list[Any] = []

    async def watch_files(context: Any) -> None:
        await going.wait()
        await watched.trigger("go")
        await watched.trigger("go", context=TriggerContext(history=["go"]))

    watched.orchestrator.on_event("go", lambda handle, context: tasks.append(
        asyncio.create_task(watch_files(context))) if not tasks else None)  # fmt: skip
    await watched.trigger("go")
    await watched.over()
    going.set()
    assert await watched.over(3) == [("go", "success", 1)] * 3
    assert len({chain.id for chain in watched.chains}) == 3


async def test_one_orchestrators_callback_does_not_draw_another_in() -> None:
    one, other = Watched(command("A", "go")), Watched(command("B", "go"))

    async def across(handle: Any, context: Any) -> None:
        await other.trigger("go")

    one.orchestrator.on_event("go", across)
    await one.trigger("go")
    assert (await one.over(), await other.over()) == ([("go", "success", 1)], [("go", "success", 1)])
    assert one.chains[0].id != other.chains[0].id
    assert one.chains[0].session_id != other.chains[0].session_id


class Refusing(LocalSubprocessExecutor):
    """Cannot start one of its commands."""

    async def start_run(self, result: Any, resolved: Any) -> None:
        if result.command_name == "B":
            raise ExecutorError("no room")
        await super().start_run(result, resolved)


async def test_a_run_that_cannot_be_started_is_a_step_that_failed() -> None:
    after = (f"command_{what}:B" for what in ("started", "failed"))
    executor = Refusing()
    other = Watched(command("B"), executor=executor)
    watched = Watched(command("A", "go"), command("B", "command_success:A"), command("C", *after), executor=executor)
    await watched.trigger("go")
    assert await watched.over() == [("go", "failure", 2)]
    assert watched.steps == [(0, "A", "success"), (1, "B", "failed")]
    assert other.runs == []


async def test_a_run_that_cmdorc_forgets_does_not_hold_its_chain_open() -> None:
    watched = Watched(command("A", "go", line="sleep 0.2"), command("B", "command_success:A"))
    await watched.trigger("go")
    (handle,) = watched.orchestrator.get_all_active_handles()
    with pytest.raises(asyncio.TimeoutError):
        await handle.wait(timeout=0.01)  # which ends cmdorc's own monitor of the run
    assert await watched.over() == [("go", "cancelled", 1)], "it would have led on to B"


# -- shutdown ----------------------------------------------------------------------------------------------------------


async def test_an_orchestrator_that_is_closed_midway_ends_its_chains() -> None:
    watched = Watched(command("Fail", "go", line="exit 1"), command("A", "go", line=LONG), command("B", "stop"))
    await watched.trigger("go")
    await watched.running("A")
    await until(lambda: watched.steps)
    await watched.shutdown()
    assert watched.ended == [("go", "cancelled", 2)]
    sound(watched.records)
    assert [type(record).__name__ for record in watched.records[-2:]] == ["Chain", "Session"]


async def test_a_run_that_outlives_shutdown_is_abandoned() -> None:
    watched = Watched(command("A", "go", line="exec sleep 1"))
    await watched.trigger("go")
    await watched.running("A")
    await watched.shutdown(timeout=0.01, cancel_running=False)
    assert watched.ended == [("go", "cancelled", 1)]
    assert [(run.command_name, run.final) for run in watched.runs] == [("A", False)]
    await watched.orchestrator._executor.cleanup()
    assert len(watched.runs) == 1


@pytest.mark.parametrize(("follower", "outcome"), [
    ("command_success:A", "cancelled"), ("command_failed:A", "success"), ("command_started:B", "success"),
])  # fmt: skip
async def test_a_chain_is_cut_off_where_it_would_have_led_on(follower: str, outcome: str) -> None:
    watched = Watched(command("A", "go"), command("B", follower))
    await watched.trigger("go")
    (handle,) = watched.orchestrator.get_all_active_handles()
    await handle.wait()
    await watched.shutdown()
    assert watched.ended == [("go", outcome, 1)]
    sound(watched.records)


async def test_a_chain_is_cut_off_where_cmdorc_refuses_to_go_on_while_it_waits_for_the_rest() -> None:
    watched = Watched(command("A", "go", line="sleep 0.1"), command("B", "command_success:A"))
    await watched.trigger("go")
    await watched.running("A")
    await watched.shutdown(timeout=10, cancel_running=False)
    assert (watched.ended, watched.steps) == ([("go", "cancelled", 1)], [(0, "A", "success")])
    sound(watched.records)


async def test_a_chain_is_cut_off_where_its_first_run_had_just_begun() -> None:
    watched = Watched(command("A", "go"), command("B", "command_started:A"))
    await watched.trigger("go")
    await watched.shutdown(timeout=10, cancel_running=False)
    assert (watched.ended, watched.steps) == ([("go", "cancelled", 1)], [(0, "A", "success")])


async def test_a_callback_of_the_chain_that_shuts_down() -> None:
    watched = Watched(command("A", "go"), command("Last", "orchestrator_shutdown"))

    async def stop(handle: Any, context: Any) -> None:
        await watched.shutdown()

    watched.orchestrator.on_event("command_success:A", stop)
    await watched.trigger("go")
    await until(lambda: watched.orchestrator._is_shutdown and not watched.orchestrator._handles)
    assert sorted(watched.ended) == [("go", "success", 1), ("orchestrator_shutdown", "success", 1)]
    sound(watched.records)


async def test_what_starts_after_shutdown_belongs_to_no_chain() -> None:
    watched = Watched(command("A", "go"), command("B", "go"))
    release = asyncio.Event()
    start = watched.orchestrator._executor.start_run

    async def slow(result: Any, resolved: Any) -> None:
        if result.command_name == "A":
            await release.wait()
        await start(result, resolved)

    watched.orchestrator._executor.start_run = slow  # type: ignore[method-assign]
    call = asyncio.create_task(watched.trigger("go"))
    await until(lambda: watched.orchestrator._handles)
    await watched.shutdown(timeout=0.01, cancel_running=False)
    release.set()
    await call
    await until(lambda: watched.runs)
    assert [(run.command_name, run.chain) for run in watched.runs] == [("B", None)]
    assert watched.chains == []


async def test_nothing_of_a_chain_is_left_in_memory() -> None:
    watched = Watched(command("A", "go"), command("B", "command_success:A"))
    gc.collect()
    before = sum(type(each) in (Call, Course) for each in gc.get_objects())
    for count in (1, 2, 3):
        await watched.trigger("go")
        await watched.over(count)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    gc.collect()
    assert sum(type(each) in (Call, Course) for each in gc.get_objects()) == before
    await watched.shutdown()


async def test_where_nobody_listens_to_chains_none_is_followed() -> None:
    orchestrator = CommandOrchestrator(RunnerConfig(commands=[command("A", "go")]))
    records: list[Any] = []
    assert observe(orchestrator, lambda hook, record: records.append(record))
    await orchestrator.trigger("go")
    (handle,) = orchestrator.get_all_active_handles()
    assert "cleanup" not in vars(handle)
    await until(lambda: not orchestrator._handles)
    assert [record.chain for record in records if isinstance(record, CompletedRun)] == [None]
    assert not any(isinstance(record, Chain) for record in records)
    assert any(isinstance(record, Trigger) for record in records)


def test_a_call_that_no_loop_runs_is_observed_all_the_same() -> None:
    watched = Watched(command("A", "go"))
    call = watched.trigger("nobody")
    with pytest.raises(StopIteration):
        call.send(None)
    assert [record.name for record in watched.records if isinstance(record, Trigger)] == ["nobody"]
