"""Real cmdorc runs on a machine whose user said yes; programs that are killed, answers that are lost."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cmdorc_telemetry_segment
from cmdorc_telemetry.testing import Answer, Request
from cmdorc_telemetry_segment import SegmentReporter

if TYPE_CHECKING:
    from .conftest import Machine, Server

BIN = Path(sys.executable).parent
SETTINGS = 'endpoint = "{}"\nwrite_key = "ofThisSource"'

RUNS = """
import asyncio, sys, cmdorc
from cmdorc_telemetry import TelemetryOrchestrator

async def main():
    commands = [cmdorc.CommandConfig(name="Secret name", command="true", triggers=[], max_concurrent=0)]
    async with TelemetryOrchestrator(cmdorc.RunnerConfig(commands=commands)) as orchestrator:
        while True:
            await (await orchestrator.run_command("Secret name")).wait()
            print("ran", flush=True)

asyncio.run(main())
"""
FIRES = """
import sys
from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.lifecycle import CompletedRun

telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
for number in range(int(sys.argv[1])):
    run = CompletedRun(run_id="r", command_name="c", state="success", duration=number / 1000)
    telemetry.fire("cmdorc_completed", run)
print("fired", flush=True)
telemetry.close()
"""


def test_the_package_offers_its_reporter() -> None:
    (point,) = (each for each in metadata.entry_points(group="cmdorc_telemetry") if each.name == "segment")
    assert point.load().telemetry_reporters() == [SegmentReporter]
    assert metadata.version("cmdorc-telemetry-segment") == cmdorc_telemetry_segment.__version__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmdorc_telemetry_segment.nothing


def test_nothing_heavy_is_imported_before_the_first_request() -> None:
    script = """
import sys
before = set(sys.modules)  # a measuring tool may have loaded some already
import cmdorc_telemetry_segment, cmdorc_telemetry_segment.plugin as plugin
assert "msgspec" not in sys.modules and "cmdorc_telemetry_segment.reporter" not in sys.modules
(kind,) = plugin.telemetry_reporters()
kind(kind.Settings(endpoint="https://api.segment.io/v1", write_key="a"))
new = set(sys.modules) - before
print([name for name in ("h11", "asyncio", "socket", "ssl", "segment", "requests") if name in new])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"


def test_real_runs_arrive_as_they_were_shown(machine: Machine, server: Server, tmp_path: Path) -> None:
    machine.agree(SETTINGS.format(server.endpoint), batch_events=1)
    (tmp_path / "cmdorc.toml").write_text(
        '[[command]]\nname = "Secret name"\ncommand = "echo secret; exit 3"\ntriggers = []\n'
    )
    command = [BIN / "cmdorc", "run", "Secret name"]
    done = subprocess.run(command, cwd=tmp_path, env=machine.environ, check=False, capture_output=True, timeout=60)
    assert done.returncode == 3, done.stderr
    shown = machine.tell("show-payload", "command_completed", "--to", "segment")
    assert server.seen == []
    machine.tell("flush")
    names = sorted(event["event"] for event in server.source.events)
    assert names == ["command_completed", "orchestrator_started", "orchestrator_stopped", "trigger_fired"]
    (run,) = (event for event in server.source.events if event["event"] == "command_completed")
    assert run["properties"]["state"] == "failed"
    bodies = [request.body for request in server.seen]
    assert shown in bodies
    audited = b"".join(file.read_bytes() for file in machine.root.glob("telemetry/audit/*"))
    assert all(hashlib.sha256(body).hexdigest().encode() in audited for body in bodies)
    assert b"ecret" not in b"".join(bodies)
    assert machine.ledger()["acknowledged"] == len(names)


def test_killed_programs_and_lost_answers_lose_nothing_and_double_nothing(machine: Machine, server: Server) -> None:
    machine.agree(SETTINGS.format(server.endpoint))
    ran = 0
    for faults in (["answer-lost"] * 2, ["503-seconds", "reset-mid-request", "answer-reset"], ["html", "429-seconds"]):
        server.will(*faults)
        seen = len(server.seen)
        with machine.start(RUNS) as program:
            assert program.stdout is not None
            for _ in range(20):
                assert program.stdout.readline() == "ran\n"
            server.wait_for(lambda server, seen=seen: len(server.seen) > seen)  # type: ignore[misc]
            program.kill()
            ran += 20 + program.stdout.read().count("ran\n")
    server.fail(None)
    machine.tell("flush")
    ledger = machine.ledger()
    assert (ledger["acknowledged"], ledger["pending"], ledger["dropped"]) == (ledger["recorded"], 0, {})
    kept = server.source.events
    assert len(kept) == ledger["recorded"] < server.source.received
    assert ran <= sum(event["event"] == "command_completed" for event in kept) <= ran + 3  # one not yet told, each time
    assert server.source.ignored == []


def test_a_server_that_was_away_for_long_gets_everything(machine: Machine, server: Server) -> None:
    machine.agree(SETTINGS.format(server.endpoint))
    server.fail("refused")
    program = machine.start(FIRES, 300)
    program.communicate(timeout=30)
    machine.tell("flush", "--timeout", "3", code=1)
    assert machine.ledger()["pending"] == 300
    server.fail(None)
    machine.tell("flush")
    assert len(server.source.events) == server.source.received == 300


def test_more_than_segment_takes_at_once_is_split(machine: Machine, server: Server) -> None:
    machine.agree(SETTINGS.format(server.endpoint), batch_events=3000, batch_kib=8192)
    machine.start(FIRES, 3000).communicate(timeout=30)
    machine.tell("flush", "--timeout", "30")
    assert len(server.source.events) == server.source.received == 3000
    assert all(len(request.body) < 500_000 for request in server.seen)
    assert len(server.seen) < 20  # and no smaller than need be


def test_an_event_that_is_refused_is_set_aside_alone(machine: Machine, server: Server) -> None:
    def picky(request: Request) -> Answer:
        if b'"duration_ms":13,' in request.body:
            return Answer(400, b'{"detail": "unlucky"}')
        return server.source(request)

    server.answer = picky
    machine.agree(SETTINGS.format(server.endpoint))
    machine.start(FIRES, 100).communicate(timeout=30)
    machine.tell("flush", "--timeout", "20", code=1)
    assert {event["properties"]["duration_ms"] for event in server.source.events} == set(range(100)) - {13}
    assert server.source.received == 99
    ledger = machine.ledger()
    assert (ledger["set_aside"], ledger["pending"], ledger["acknowledged"]) == (1, 1, 99)
    assert b"unlucky" in machine.tell("dead-letters")


def test_what_rename_takes_away_waits_and_says_why(machine: Machine, server: Server) -> None:
    machine.agree(SETTINGS.format(server.endpoint) + '\nrename = { event_id = "id" }')
    machine.start(FIRES, 3).communicate(timeout=30)
    machine.tell("flush", "--timeout", "2", code=1)
    assert machine.ledger()["last_error"] == "it needs event_id: check the destination's 'rename'"
    assert server.seen == []


def test_other_names_for_properties(machine: Machine, server: Server) -> None:
    rename = '\nrename = { duration_ms = "ms", command_completed = "Run completed" }'
    machine.agree(SETTINGS.format(server.endpoint) + rename)
    machine.start(FIRES, 1).communicate(timeout=30)
    machine.tell("flush")
    (event,) = server.source.events
    assert (event["event"], event["properties"]["ms"]) == ("Run completed", 0)


def test_the_key_may_come_from_a_variable_and_the_address_may_not(machine: Machine, server: Server) -> None:
    machine.environ |= {"SEG_KEY": "ofThisSource", "SEG_URL": server.endpoint}
    machine.agree(f'endpoint = "{server.endpoint}"\nwrite_key_env = "SEG_KEY"')
    machine.start(FIRES, 1).communicate(timeout=30)
    machine.tell("flush")
    assert len(server.source.events) == 1
    (machine.root / "config.toml").write_text(
        '[telemetry]\nplugins = ["segment"]\n[telemetry.to.segment]\nendpoint_env = "SEG_URL"\nwrite_key = "k"'
    )
    assert b"telemetry.to.segment.endpoint_env" in machine.tell("status", code=2)


def test_nothing_can_be_erased_and_opt_out_says_so(machine: Machine, server: Server) -> None:
    machine.agree(SETTINGS.format(server.endpoint))
    machine.start(FIRES, 1).communicate(timeout=30)
    machine.tell("flush")
    done = subprocess.run([BIN / "cmdorc-telemetry", "opt-out"], env=machine.environ, check=False, text=True,
                          capture_output=True, timeout=60)  # fmt: skip
    assert "segment: has no way to erase what it was sent" in done.stderr
    assert len(server.seen) == 1
