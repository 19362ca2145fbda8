"""A server that means harm: whatever it answers, a call ends at its deadline, and memory stays what it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmdorc_telemetry.testing import FaultServer

if TYPE_CHECKING:
    pass

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

async def main():
    name, settings, deadline = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    reporter = make_reporter(PluginHost([name]).reporters()[name], DestinationConfig(name, name, settings=settings), {})
    event = BatchEvent("e", "command_completed", b'{"event":"command_completed","event_id":"e"}')
    batch = Batch(destination=name, events=(event, event))
    for line in sys.stdin:
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
SETTINGS: dict[str, Callable[[str], dict[str, str]]] = {"http": lambda endpoint: {"endpoint": endpoint}}
"""Reporter → its settings: as in the fault matrix."""


@pytest.mark.parametrize("name", SETTINGS)
def test_no_answer_does_harm(name: str, tmp_path: Path) -> None:
    with FaultServer() as server:
        settings = json.dumps(SETTINGS[name](server.endpoint))
        caller = subprocess.Popen([sys.executable, "-c", CALLING, name, settings, str(DEADLINE)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
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
