"""The plugin as a user has it: named in the configuration, agreed to, and done. Real runs of cmdorc's."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

Make = Callable[..., Any]
PIPELINE = """
[[command]]
name = "Build"
command = "true"
triggers = ["push"]

[[command]]
name = "Unit"
command = "sleep 0.1"
triggers = ["command_success:Build"]

[[command]]
name = "Lint"
command = "sleep 0.5"
triggers = ["command_success:Build"]

[[command]]
name = "Deploy"
command = "exit 3"
triggers = ["command_success:Unit", "command_success:Lint"]

[[command]]
name = "Alone"
command = "true"
triggers = []
"""


@pytest.fixture
def pipeline(machine: Any, server: Any) -> Any:
    """A user who agreed to all that there is."""
    table = f'plugins = ["otlp"]\n[telemetry.to.otlp]\naudience = "private"\nendpoint = "{server.url}"\n'
    machine.configure(f"[telemetry]\n{table}headers_env = 'OTLP_HEADERS'\n", PIPELINE)
    machine.environ["OTLP_HEADERS"] = "x-key=s3cret"
    done = machine("opt-in", "--yes", "--level", "minimal", module="cmdorc_telemetry")
    assert done.returncode == 0, done.stderr + done.stdout
    return machine


def test_a_chain_arrives_as_a_trace(pipeline: Any, server: Any) -> None:
    done = pipeline("trigger", "push", "--flush", "20")
    assert done.returncode == 0, done.stderr + done.stdout
    got = server.got
    names = Counter(span.name for span in got.spans.values())
    assert names == {"RUN push": 1, "Build": 1, "Unit": 1, "Lint": 1, "Deploy": 2}
    assert len({span.trace_id for span in got.spans.values()}) == 1
    chain, build, unit, lint = (got.named(name) for name in ("RUN push", "Build", "Unit", "Lint"))
    assert build.parent_span_id == chain.span_id
    assert unit.parent_span_id == lint.parent_span_id == build.span_id
    first, second = sorted((span for span in got.spans.values() if span.name == "Deploy"),
                           key=lambda span: span.start_time_unix_nano)  # fmt: skip
    assert (first.parent_span_id, len(first.links)) == (unit.span_id, 0)
    assert second.parent_span_id == lint.span_id
    assert [link.span_id for link in second.links] == [unit.span_id]  # both led to it
    for before, after in pairwise((chain, build, unit, first, second)):
        assert before.start_time_unix_nano <= after.start_time_unix_nano
    for before, after in ((build, unit), (build, lint), (unit, first), (lint, second)):
        assert before.end_time_unix_nano <= after.start_time_unix_nano + 5_000_000  # each is rounded
    assert chain.end_time_unix_nano >= second.end_time_unix_nano - 5_000_000
    assert got.attributes(chain)["cicd.pipeline.result"] == "failure"
    runs = {got.attributes(span).get("cicd.pipeline.task.run.id") for span in got.spans.values()} - {None}
    told = {got.attributes(each).get("cicd.pipeline.task.run.id") for each in got.records} - {None}
    assert runs == told
    assert len(runs) == 5
    assert got.total("cmdorc.command_completed.count") == 5
    assert got.total("cicd.pipeline.run.duration", cicd__pipeline__result="failure") == 1
    assert got.total("cicd.pipeline.run.errors", error__type="failed") == 2
    assert {request.headers["x-key"] for request in server.seen} == {"s3cret"}
    assert got.faults == []


def test_runs_of_many_processes_add_up(pipeline: Any, server: Any) -> None:
    for _ in range(2):
        assert pipeline("run", "Alone", "--flush", "20").returncode == 0
    assert pipeline("run", "Alone").returncode == 0  # too short to send
    assert pipeline("flush", module="cmdorc_telemetry").returncode == 0
    assert [span.name for span in server.got.spans.values()] == ["Alone"] * 3
    assert len({span.trace_id for span in server.got.spans.values()}) == 3
    assert server.got.total("cmdorc.command_completed.count") == 3
    assert server.got.faults == []
    assert len(set(server.got.event_ids())) == len(server.got.event_ids())


def test_nothing_is_lost_while_the_receiver_is_ill(pipeline: Any, server: Any) -> None:
    server.fail("502")
    assert pipeline("trigger", "push", "--flush", "5").returncode == 0
    assert server.got.spans == {}
    server.fail(None)
    done = pipeline("flush", module="cmdorc_telemetry")
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(server.got.spans) == 6
    assert server.got.total("cmdorc.command_completed.count") == 5
    status = json.loads(pipeline("status", "--json", module="cmdorc_telemetry").stdout)
    assert "otlp" in json.dumps(status)


def test_what_is_shown_is_what_is_sent(pipeline: Any, server: Any) -> None:
    assert pipeline("trigger", "push").returncode == 0
    done = pipeline("show-payload", "traces.chain_ended", "--to", "otlp", module="cmdorc_telemetry", text=False)
    assert done.returncode == 0, done.stderr
    assert b"RUN push" in done.stdout
    assert server.seen == []


def test_a_shared_destination_gets_no_traces(machine: Any, server: Any) -> None:
    machine.configure(f'[telemetry]\nplugins = ["otlp"]\n[telemetry.to.otlp]\nendpoint = "{server.url}"\n', PIPELINE)
    assert machine("opt-in", "--yes", "--level", "standard", module="cmdorc_telemetry").returncode == 0
    assert machine("trigger", "push", "--flush", "20").returncode == 0
    assert server.got.spans == {}
    assert server.got.total("cmdorc.command_completed.count") == 5
    sent = b"".join(request.plain for request in server.seen)
    assert not [name for name in (b"Build", b"Deploy", b"push") if name in sent]


@pytest.mark.parametrize("audience", ["private", "shared"])
def test_under_an_operators_grant_their_own_receiver_gets_traces(machine: Any, server: Any, audience: str) -> None:
    """As in CI: nobody is there to be asked, and the operator's file says whose the receiver is."""
    machine.configure("", PIPELINE)
    (file := machine.root / "operator.toml").write_text(
        f'[telemetry]\nplugins = ["otlp"]\n[telemetry.to.otlp]\naudience = "{audience}"\nendpoint = "{server.url}"\n'
    )
    machine.environ |= {"CI": "1", "CMDORC_TELEMETRY": "standard", "CMDORC_TELEMETRY_CONFIG": str(file)}
    done = machine("trigger", "push", "--flush", "20")
    assert done.returncode == 0, done.stderr + done.stdout
    names = Counter(span.name for span in server.got.spans.values())
    assert names == ({"RUN push": 1, "Build": 1, "Unit": 1, "Lint": 1, "Deploy": 2} if audience == "private" else {})
    assert server.got.total("cmdorc.command_completed.count") == 5
    if audience == "shared":
        sent = b"".join(request.plain for request in server.seen)
        assert not [name for name in (b"Build", b"Deploy", b"push", b"traces") if name in sent]


def test_enabled_after_the_yes_it_is_asked_for_once(machine: Any, server: Any) -> None:
    machine.configure("", PIPELINE)
    assert machine("opt-in", "--yes", "--level", "minimal", module="cmdorc_telemetry").returncode == 0
    machine.configure(f'[telemetry]\n[telemetry.to.otlp]\naudience = "private"\nendpoint = "{server.url}"\n', PIPELINE)
    done = machine("enable", "otlp", module="cmdorc_telemetry")
    assert "Nothing of cmdorc.traces is recorded before your yes" in done.stdout
    assert machine("trigger", "push", "--flush", "20").returncode == 0
    assert server.got.spans == {}
    shown = machine("review", "--yes", module="cmdorc_telemetry").stderr
    assert "traces.run_ended  A run that belongs to a chain of triggers ended" in shown
    assert "To       otlp (yours)" in shown
    assert "Nothing waits" in machine("review", module="cmdorc_telemetry").stdout
    assert machine("trigger", "push", "--flush", "20").returncode == 0
    assert server.got.named("RUN push")


def test_opting_out_deletes_what_was_counted(pipeline: Any, server: Any) -> None:
    assert pipeline("run", "Alone", "--flush", "20").returncode == 0
    assert list((pipeline.home / "telemetry" / "plugins" / "otlp").glob("*.db"))
    before = len(server.seen)
    done = pipeline("opt-out", module="cmdorc_telemetry")
    assert done.returncode == 0, done.stderr + done.stdout
    assert not list(pipeline.home.rglob("*.db"))
    assert len(server.seen) == before  # OTLP has nothing to ask for that


SENDER = """
import asyncio, json, sys
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_otlp import OtlpReporter

async def main(endpoint, events, first):
    reporter = OtlpReporter(OtlpReporter.Settings(endpoint=endpoint))
    for start in range(first, len(events), 7):
        some = tuple(BatchEvent(id_, name, body.encode()) for id_, name, body in events[start : start + 7])
        batch = Batch(destination="otlp", events=some)
        reporter.encode(batch)
        await reporter.report_batch(batch)
        print(start + 7, flush=True)
    await reporter.close()

asyncio.run(main(sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3])))
"""


def test_whenever_it_is_killed_nothing_is_lost_and_no_sum_is_wrong(machine: Any, server: Any, run: Make) -> None:
    """What delivery does around it: what was not acknowledged is given to the next process."""
    events = [run(f"C{number % 3}", manual=True, timestamp=f"2026-01-02T03:{number // 60:02}:{number % 60:02}Z")
              for number in range(210)]  # fmt: skip
    file = machine.root / "events.json"
    file.write_text(json.dumps([[each.event_id, each.event, each.body.decode()] for each in events]))
    dice, first, kills = random.Random(7), 0, 0
    while first < len(events):
        process = machine.start(SENDER, server.url, file, first)
        for _ in range(dice.randrange(1, 5)):
            if line := process.stdout.readline():
                first = int(line)
        wait = threading.Event()
        wait.wait(dice.random() / 100)  # a moment that nobody chose
        process.kill()
        first = max([first, *map(int, process.communicate()[0].split())])
        kills += 1
    assert kills > 5
    assert set(server.got.event_ids()) == {event.event_id for event in events}
    assert len(server.got.spans) == len(events)
    assert {len(set(each)) for each in server.got.copies.values()} == {1}
    assert server.got.total("cmdorc.command_completed.count") == len(events)
    assert server.got.faults == []
