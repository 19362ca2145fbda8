"""A hundred real runs of all kinds at once: none missed, none reported twice or with a state that was not its last."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest
from cmdorc import (
    CommandConfig,
    CommandOrchestrator,
    ConcurrencyLimitError,
    ExecutorError,
    LocalSubprocessExecutor,
    RunnerConfig,
    RunResult,
    RunState,
)

from cmdorc_telemetry.instrumentation import observe
from cmdorc_telemetry.lifecycle import CompletedRun, Trigger


class Picky(LocalSubprocessExecutor):
    async def start_run(self, result: Any, resolved: Any) -> None:
        if result.command_name == "Picky":
            raise ExecutorError("not this one")
        await super().start_run(result, resolved)


def command(name: str, line: str, *triggers: str, **settings: Any) -> CommandConfig:
    return CommandConfig(name=name, command=line, triggers=list(triggers), **{"max_concurrent": 0, **settings})


COMMANDS = [
    command("Good", "true", "all"),
    command("Bad", "exit 7", "all"),
    command("Slow", "exec sleep 0.2"),
    command("Timeout", "exec sleep 20", timeout_secs=1),
    command("Picky", "true", "all"),
    command("Nowhere", "true", "all", cwd="/nonexistent/directory"),
    command("Long", "exec sleep 20", cancel_on_triggers=["stop"]),
    command("Restart", "exec sleep 20", max_concurrent=1),
    command("Once", "exec sleep 0.3", max_concurrent=1, on_retrigger="ignore"),
    command("Ping", "true", "ping", "command_success:Pong"),
    command("Pong", "true", "command_success:Ping"),
    command("After", "true", "command_failed:Bad", "command_cancelled:Long", "command_success:Good"),
    command("Last", "exec sleep 0.05", "orchestrator_shutdown"),
]


async def test_storm(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    finalised: dict[str, RunResult] = {}
    finalize = RunResult._finalize

    def witness(result: RunResult) -> None:
        finalised[result.run_id] = result
        finalize(result)

    monkeypatch.setattr(RunResult, "_finalize", witness)
    dice = random.Random(4)
    orchestrator = CommandOrchestrator(RunnerConfig(commands=COMMANDS), executor=Picky())
    records: list[Any] = []
    assert observe(orchestrator, lambda hook, record: records.append(record))

    async def run(name: str, number: int) -> None:
        await asyncio.sleep(dice.random() / 2)
        try:
            handle = await orchestrator.run_command(name)
        except (ConcurrencyLimitError, ExecutorError):
            return
        match name, number % 3:
            case ("Slow", 0):
                with pytest.raises(asyncio.TimeoutError):
                    await handle.wait(timeout=0.01)
            case ("Slow", 1) | ("Long", 0) | ("Good", 0):
                await asyncio.sleep(dice.random() / 4)
                await orchestrator.cancel_run(handle.run_id)

    kinds = ["Good", "Bad", "Slow", "Timeout", "Picky", "Nowhere", "Long", "Restart", "Once"]
    storm = [run(name, number) for name in kinds for number in range(9)]
    storm += [orchestrator.trigger(event) for event in ("all", "ping", "ping", "nobody")]
    await asyncio.gather(*storm)
    await orchestrator.trigger("stop")
    deadline = time.monotonic() + 10
    while sum(handle.command_name == "Timeout" for handle in orchestrator.get_all_active_handles()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    for _ in range(4):
        await orchestrator.run_command("Long")
    await orchestrator.run_command("Slow")
    await orchestrator.shutdown(timeout=5)

    runs = {record.run_id: record for record in records if isinstance(record, CompletedRun)}
    assert max(Counter(record.run_id for record in records if isinstance(record, CompletedRun)).values()) == 1
    assert set(runs) == set(finalised)
    assert len(runs) > 100
    assert {run_id: run.state for run_id, run in runs.items()} == {k: v.state.value for k, v in finalised.items()}
    assert all(run.final and run.concurrent_runs >= 1 for run in runs.values())
    assert Counter(run.state for run in runs.values()).keys() == {"success", "failed", "cancelled"}
    assert {run.command_name for run in runs.values()} == {each.name for each in COMMANDS}
    assert max(run.concurrent_runs for run in runs.values()) > 10
    assert sum(run.timed_out for run in runs.values()) == 9
    triggered = sum(record.runs_started for record in records if isinstance(record, Trigger))
    assert triggered == sum(not run.manual for run in runs.values())
    assert not any(name.startswith("mark_") for result in finalised.values() for name in vars(result))
    assert all(result.state is not RunState.RUNNING for result in finalised.values())
    assert [record for record in caplog.records if record.name == "cmdorc_telemetry"] == []
