"""Chains that do not go as planned: whatever becomes of them, what arrives is a trace, and what is missing is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]
PROGRAM = """
import asyncio, os, signal, sys, time
from cmdorc import CommandConfig, CommandOrchestrator, RunnerConfig
from cmdorc_telemetry import instrument

def orchestrator(*commands):
    made = [CommandConfig(**{"command": "true", **each}) for each in commands]
    it = CommandOrchestrator(RunnerConfig(commands=made))
    instrument(it)
    return it

async def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)

def runs(it, name):
    return any(handle.state.value == "running" for handle in it.get_active_handles(name))

SLOW = "exec sleep 20"
CHAIN = ({"name": "Build", "triggers": ["push"]},
         {"name": "Unit", "triggers": ["command_success:Build"], "command": SLOW},
         {"name": "Deploy", "triggers": ["command_success:Unit"]})

async def cancelled():
    it = orchestrator(*CHAIN)
    await it.trigger("push")
    await until(lambda: runs(it, "Unit"))
    await it.cancel_command("Unit")
    await until(lambda: not it.get_all_active_handles())
    await it.shutdown()

async def stopped():
    it = orchestrator(*CHAIN)
    await it.trigger("push")
    await until(lambda: runs(it, "Unit"))
    await it.shutdown()

async def abandoned():
    it = orchestrator(*CHAIN)
    await it.trigger("push")
    await until(lambda: runs(it, "Unit"))
    await it.shutdown(timeout=0.01, cancel_running=False)
    os._exit(0)  # the command goes on

async def killed():
    it = orchestrator(*CHAIN)
    await it.trigger("push")
    await until(lambda: runs(it, "Unit"))
    os.kill(os.getpid(), signal.SIGKILL)

async def cycle():
    it = orchestrator({"name": "A", "triggers": ["push", "command_success:B"], "max_concurrent": 0},
                      {"name": "B", "triggers": ["command_success:A"]})
    await it.trigger("push")
    await until(lambda: len(it.get_history("A")) == 2 and not it.get_all_active_handles())
    await it.shutdown()

async def restarted():
    it = orchestrator({"name": "A", "triggers": ["push", "again"], "command": SLOW},
                      {"name": "B", "triggers": ["command_failed:A", "command_cancelled:A"]})  # by version of Python
    await it.trigger("push")
    await until(lambda: runs(it, "A"))
    await it.trigger("again")
    await until(lambda: it.get_history("B") and runs(it, "A"))
    await it.shutdown()

async def unstartable():
    it = orchestrator({"name": "A", "triggers": ["push"], "cwd": "/nowhere"}, {"name": "B", "triggers": ["push"]})
    await it.trigger("push")
    await until(lambda: it.get_history("B") and not it.get_all_active_handles())
    await it.shutdown()

async def two():
    one, other = (orchestrator(*({**each, "command": "true"} for each in CHAIN)) for _ in range(2))
    async def across(handle, context):
        await other.trigger("push")
    one.on_event("command_success:Build", across)  # in the middle of a chain of the one, a chain of the other
    await one.trigger("push")
    await until(lambda: one.get_history("Deploy") and other.get_history("Deploy"))
    await until(lambda: not one.get_all_active_handles() and not other.get_all_active_handles())
    await one.shutdown()
    await other.shutdown()

asyncio.run(globals()[sys.argv[1]]())
"""


@pytest.fixture
def chain(machine: Any, server: Any) -> Make:
    """Runs a program in which a chain does not go as planned; then what it recorded is sent."""
    table = f'plugins = ["otlp"]\n[telemetry.to.otlp]\naudience = "private"\nendpoint = "{server.url}"\n'
    machine.configure(f"[telemetry]\n{table}", "")
    assert machine("opt-in", "--yes", "--level", "minimal", module="cmdorc_telemetry").returncode == 0

    def run(which: str, code: int = 0) -> list[Any]:
        process = machine.start(PROGRAM, which)
        _, said = process.communicate(timeout=90)
        assert process.returncode == code, said
        done = machine("flush", module="cmdorc_telemetry")
        assert done.returncode == 0, done.stderr + done.stdout
        return list(server.got.spans.values())

    return run


def names(spans: list[Any]) -> Counter[str]:
    return Counter(span.name for span in spans)


def missing(spans: list[Any]) -> set[bytes]:
    """The parents that did not arrive, once all else that must hold of traces was seen to."""
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    assert len(by_id) == len(spans)
    lost = set()
    for span in spans:
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        for link in span.links:
            assert (link.trace_id, link.span_id) in by_id
        parent = by_id.get((span.trace_id, span.parent_span_id))
        if parent is not None:
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
        elif span.parent_span_id:
            lost.add(span.parent_span_id)
        else:
            assert span.name.startswith("RUN "), "each trace has one root: its chain"
    return lost


def results(server: Any, spans: list[Any]) -> dict[str, str]:
    found = {}
    for span in spans:
        own = server.got.attributes(span)
        found[span.name] = own.get("cicd.pipeline.result") or own["cicd.pipeline.task.run.result"]
    return found


@pytest.mark.parametrize("which", ["cancelled", "stopped", "abandoned"])
def test_what_is_cut_off_ends_in_a_cancellation(chain: Make, server: Any, which: str) -> None:
    spans = chain(which)
    assert missing(spans) == set()
    assert results(server, spans) == {"RUN push": "cancellation", "Build": "success", "Unit": "cancellation"}
    assert len(spans) == 3
    assert not any(span.status.code for span in spans), "nobody's error"
    assert server.got.total("cicd.pipeline.run.errors") == 0


def test_of_a_program_that_is_killed_the_end_is_missing_and_nothing_else(chain: Make, server: Any) -> None:
    (build,) = chain("killed", -9)
    assert build.name == "Build"
    assert missing([build]) == {build.parent_span_id}
    assert server.got.total("cmdorc.command_completed.count") == 1
    assert server.got.total("cicd.pipeline.run.duration") == 0


def test_a_cycle_ends_where_it_would_begin_anew(chain: Make, server: Any) -> None:
    spans = chain("cycle")
    assert names(spans) == {"RUN push": 1, "A": 2, "B": 1}
    assert missing(spans) == set()
    (b,) = [span for span in spans if span.name == "B"]
    first, second = sorted((span for span in spans if span.name == "A"), key=lambda span: span.start_time_unix_nano)
    assert (first.span_id, b.span_id) == (b.parent_span_id, second.parent_span_id)
    assert results(server, spans)["RUN push"] == "success"


def test_a_run_that_is_cancelled_for_another_chain_stays_in_its_own(chain: Make, server: Any) -> None:
    spans = chain("restarted")
    assert names(spans) == {"RUN push": 1, "RUN again": 1, "A": 2, "B": 1}
    assert missing(spans) == set()
    by_name = {span.name: span for span in spans}
    assert by_name["B"].trace_id == by_name["RUN push"].trace_id, "the cancelled run led to it"
    assert {span.trace_id for span in spans if span.name == "A"} == {
        by_name["RUN push"].trace_id, by_name["RUN again"].trace_id
    }  # fmt: skip


def test_a_run_that_could_not_be_started_is_a_span_without_length(chain: Make, server: Any) -> None:
    spans = chain("unstartable")
    assert missing(spans) == set()
    assert results(server, spans) == {"RUN push": "failure", "A": "failure", "B": "success"}
    (failed,) = [span for span in spans if span.name == "A"]
    assert failed.start_time_unix_nano == failed.end_time_unix_nano


def test_chains_of_two_orchestrators_are_two_traces(chain: Make, server: Any) -> None:
    spans = chain("two")
    assert names(spans) == {"RUN push": 2, "Build": 2, "Unit": 2, "Deploy": 2}
    assert missing(spans) == set()
    for trace in {span.trace_id for span in spans}:
        own = sorted(span.name for span in spans if span.trace_id == trace)
        assert own == ["Build", "Deploy", "RUN push", "Unit"]


def test_what_is_sent_by_another_process_once_more_is_the_same_trace(chain: Make, server: Any, machine: Any) -> None:
    """The answer is lost, and the program with it: the next one sends all of it again, byte for byte."""
    server.will("answer-lost", "answer-lost")
    process = machine.start(PROGRAM, "cycle")
    process.communicate(timeout=90)
    assert process.returncode == 0
    machine("flush", "--timeout", "5", module="cmdorc_telemetry")
    assert machine("flush", module="cmdorc_telemetry").returncode == 0
    assert len(server.got.spans) == 4
    assert max(len(each) for each in server.got.copies.values()) > 1
    assert {len(set(each)) for each in server.got.copies.values()} == {1}
    assert json.loads(machine("status", "--json", module="cmdorc_telemetry").stdout)["destinations"]
