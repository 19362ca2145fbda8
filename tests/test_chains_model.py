"""Random commands that trigger each other, run for real, against a reference model of what cmdorc makes of them.

The model knows one rule: an event counts once in a chain, and starts every command that it matches. For more examples:
``make chains-test``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

from cmdorc import CommandConfig, CommandOrchestrator, RunnerConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.instrumentation import observe
from cmdorc_telemetry.lifecycle import Chain, CompletedRun

EXAMPLES = int(os.environ.get("CHAINS_EXAMPLES", "25"))
LINES = {"success": "true", "failed": "exit 1", "slow": "exec sleep 0.05"}
NAMES = "ABCD"
EVENTS = [f"command_{what}:{name}" for what in ("started", "success", "failed") for name in NAMES]

commands = st.fixed_dictionaries({
    "ends": st.sampled_from(["success", "success", "failed"]),
    "triggers": st.lists(st.sampled_from(["go", "also", "go", *EVENTS]), max_size=3, unique=True),
})  # fmt: skip
graphs = st.dictionaries(st.sampled_from(NAMES), commands, min_size=1, max_size=4)
Graph = dict[str, dict[str, Any]]


def model(graph: Graph, trigger: str) -> Counter[str]:
    """How often each command runs in a chain that begins with ``trigger``."""
    told, waiting, runs = {trigger}, [trigger], Counter[str]()
    while waiting:
        event = waiting.pop()
        for name, each in graph.items():
            if event in each["triggers"]:
                runs[name] += 1
                follow = {f"command_started:{name}", f"command_{each['ends']}:{name}"} - told
                told |= follow
                waiting += follow
    return runs


def caused(chain: Chain, steps: list[CompletedRun]) -> None:
    """What led to each run of a chain is what cmdorc says started it: a run of that command, in time."""
    by_index = {step.chain_index: step for step in steps}
    first: dict[int, int] = {}
    for index, step in sorted(by_index.items()):
        kind, _, command = str(step.trigger_event).partition(":")
        if not command:
            assert step.trigger_event == chain.trigger
            assert step.chain_causes == (), "the chain's own trigger started it"
            continue
        cause = by_index[step.chain_causes[0]]
        first[index] = cause.chain_index
        assert cause.command_name == command
        assert cause.chain_index < index
        # A cancel finalises twice, also what has just ended, and cmdorc tells of the first state.
        if kind != "command_started" and cause.state != "cancelled":
            assert cause.state == kind.removeprefix("command_")
            if cause.started_at is not None and step.started_at is not None:
                assert cause.started_at + cause.duration <= step.started_at + 1e-3
        before = {by_index[each].trigger_event: first[each] for each in sorted(first)
                  if each <= index and by_index[each].command_name == step.command_name}  # fmt: skip
        assert set(step.chain_causes) == set(before.values()), "and all that had started the same command before"
        assert len(set(step.chain_causes)) == len(step.chain_causes)


class Reported:
    """What was reported of an orchestrator that runs such a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        made = [CommandConfig(name=name, command=LINES[each["ends"]], triggers=each["triggers"],
                              **{"max_concurrent": 0, **each.get("settings", {})})
                for name, each in graph.items()]  # fmt: skip
        self.orchestrator = CommandOrchestrator(RunnerConfig(commands=made))
        self.by_chain: dict[str, list[Any]] = {}
        self.records = 0
        assert observe(self.orchestrator, self._fire, chains=True)

    def _fire(self, hook: str, record: Any) -> None:
        self.records += 1
        chain = record if isinstance(record, Chain) else getattr(record, "chain", None)
        if chain is not None:
            self.by_chain.setdefault(chain.id, []).append(record)
        elif isinstance(record, CompletedRun):
            raise AssertionError("a run that was triggered is part of a chain")

    async def until(self, condition: Any) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)

    async def ticks(self, count: int) -> None:
        """Let the loop go round."""
        for _ in range(count):
            await asyncio.sleep(0)

    def quiet(self) -> bool:
        return not self.orchestrator._handles and len(asyncio.all_tasks()) == 1

    def chains(self) -> list[tuple[str, str, Counter[str]]]:
        """Trigger, outcome and runs by command of each chain; what must be true of each is checked."""
        found: list[tuple[str, str, Counter[str]]] = []
        for begun, *steps, over in self.by_chain.values():
            assert isinstance(begun, Chain)
            assert begun.outcome is None
            assert isinstance(over, Chain)
            assert over.outcome is not None, "nothing is open, and its end came after all of its steps"
            assert all(isinstance(step, CompletedRun) for step in steps), "it began once and ended once"
            assert sorted(step.chain_index for step in steps) == list(range(over.runs)), "each run is one step"
            assert len({step.run_id for step in steps}) == over.runs
            caused(over, steps)
            found.append((over.trigger, over.outcome, Counter(step.command_name for step in steps)))
        return found


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 25, database=None)
@given(graphs, st.lists(st.sampled_from(["go", "also"]), min_size=1, max_size=3))
def test_every_run_of_a_chain_is_a_step_of_it_once_and_its_end_comes_last(graph: Graph, triggers: list[str]) -> None:
    async def main() -> None:
        reported = Reported(graph)
        await asyncio.gather(*map(reported.orchestrator.trigger, triggers))
        await reported.until(reported.quiet)
        await reported.ticks(2)
        found = reported.chains()
        await reported.orchestrator.shutdown()
        assert reported.chains() == found, "nothing was left to end at shutdown"
        expected = [(trigger, runs) for trigger in triggers if (runs := model(graph, trigger))]
        assert sorted((trigger, sorted(runs.items())) for trigger, _, runs in found) == sorted(
            (trigger, sorted(runs.items())) for trigger, runs in expected
        )
        for _, outcome, runs in found:
            assert outcome == ("failure" if any(graph[name]["ends"] == "failed" for name in runs) else "success")

    asyncio.run(main())


unruly = st.fixed_dictionaries({
    "ends": st.sampled_from(["success", "failed", "slow"]),
    "triggers": st.lists(st.sampled_from(["go", "go", "also", *EVENTS]), min_size=1, max_size=4, unique=True),
    "settings": st.fixed_dictionaries({
        "max_concurrent": st.sampled_from([1, 1, 2, 0]),
        "on_retrigger": st.sampled_from(["cancel_and_restart", "ignore"]),
        "debounce_in_ms": st.sampled_from([0, 0, 0, 5]),
        "cancel_on_triggers": st.lists(st.sampled_from(EVENTS), max_size=1),
    }),
})  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 25, database=None)
@given(st.dictionaries(st.sampled_from(NAMES), unruly, min_size=2, max_size=4),
       st.lists(st.sampled_from(["go", "also"]), min_size=1, max_size=3))  # fmt: skip
def test_whatever_is_cancelled_restarted_or_refused_each_run_is_told_what_led_to_it(
    graph: Graph, triggers: list[str]
) -> None:
    async def main() -> None:
        reported = Reported(graph)
        for trigger in triggers:  # one cuts off what the one before began
            await reported.orchestrator.trigger(trigger)
            await reported.ticks(3)
        await reported.until(reported.quiet)
        await reported.ticks(2)
        found = reported.chains()
        await reported.orchestrator.shutdown()
        assert reported.chains() == found, "nothing was left to end at shutdown"

    asyncio.run(main())


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 25, database=None)
@given(graphs, st.lists(st.sampled_from(["go", "also"]), min_size=1, max_size=3), st.integers(0, 25), st.booleans())
def test_shut_down_at_any_moment_nothing_stays_open(
    graph: Graph, triggers: list[str], moment: int, cancel: bool
) -> None:
    async def main() -> None:
        reported = Reported(graph)
        calls = [asyncio.create_task(reported.orchestrator.trigger(trigger)) for trigger in triggers]
        await asyncio.sleep(0)
        await reported.until(lambda: reported.records > moment or reported.quiet())
        await reported.orchestrator.shutdown(timeout=0.01 if not cancel else 5, cancel_running=cancel)
        await asyncio.gather(*calls, return_exceptions=True)
        found = reported.chains()
        for trigger, outcome, runs in found:
            whole = model(graph, trigger)
            assert runs <= whole
            if outcome != "cancelled":
                assert runs == whole, "what was cut off says so"
        await reported.orchestrator._executor.cleanup()
        await reported.ticks(20)  # cmdorc may leave a run behind that it was just starting: there is no end to wait for
        assert reported.chains() == found, "nothing comes after the end"

    asyncio.run(main())
