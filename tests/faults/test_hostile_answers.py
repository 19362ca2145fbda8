"""A server that means harm: whatever it answers, a call ends at its deadline, and memory stays what it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cmdorc_telemetry import toml
from cmdorc_telemetry.testing import FaultServer

from .conftest import environment
from .receivers import REPORTERS, settings

HOSTILE = ("deep-json", "huge-body", "endless-body", "endless-chunks", "endless-headers", "endless-line",
           "endless-informational", "drip")  # fmt: skip
DEADLINE = 1.0
LATE = 2.0
MEGABYTES = 40
CALLING = """
import asyncio, json, resource, sys, time
from pathlib import Path
from cmdorc_telemetry.config import DestinationConfig
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.destinations import make_reporter
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.types import Batch, BatchEvent

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def made(number):
    event_id = f"0198c0de-0000-7000-8000-{number:012}"  # another each time: what arrived is sent no more by some
    body = {"event": "command_completed", "timestamp": "2026-01-02T03:04:05Z", "duration_ms": 5, "level": "minimal",
            "spec": "cmdorc.core@1", "event_id": event_id, "anonymous_install_id": "i"}
    return BatchEvent(event_id, "command_completed", json.dumps(body).encode())

async def main():
    name, settings, deadline = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    reporter = make_reporter(PluginHost([name]).reporters()[name], DestinationConfig(name, name, settings=settings), {})
    for number, line in enumerate(sys.stdin):
        batch = Batch(destination=name, events=(made(2 * number), made(2 * number + 1)))
        before, start = memory(), time.monotonic()
        try:
            await asyncio.wait_for(reporter.report_batch(batch), deadline)
            outcome = "taken"
        except (RetryLater, asyncio.TimeoutError) as fault:
            outcome = type(fault).__name__
        print(json.dumps([outcome, time.monotonic() - start, memory() - before]), flush=True)
    await reporter.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("name", REPORTERS)
def test_no_answer_does_harm(name: str, tmp_path: Path) -> None:
    service = REPORTERS[name].service
    with FaultServer(answer=None if service is None else service().answer) as server:
        said = json.dumps(toml.loads(settings(name, server.endpoint)))
        caller = subprocess.Popen([sys.executable, "-c", CALLING, name, said, str(DEADLINE)], text=True,
                                  env=environment(CMDORC_HOME=str(tmp_path)), stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)  # fmt: skip
        assert caller.stdin is not None
        assert caller.stdout is not None
        found = {}
        for fault in (None, *HOSTILE, None):
            server.fail(fault)
            caller.stdin.write("\n")
            caller.stdin.flush()
            outcome, seconds, grown = json.loads(caller.stdout.readline())
            found[fault or "fine"] = (outcome, round(seconds, 2), grown)
        caller.communicate(timeout=20)
        assert caller.returncode == 0
        assert set(server.injected) == set(HOSTILE)
    print(found)
    assert found.pop("fine")[0] == "taken"
    assert {fault for fault, (outcome, *_) in found.items() if outcome == "taken"} == set()
    assert max(seconds for _, seconds, _ in found.values()) < DEADLINE + LATE
    assert max(grown for *_, grown in found.values()) < MEGABYTES
