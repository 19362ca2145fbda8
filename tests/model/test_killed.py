"""A real process, killed by the kernel between two system calls: what it captured arrives, and is counted once.

`make model-test` kills at every one of them; the suite at some.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from cmdorc_telemetry import Telemetry, clock, hookimpl
from cmdorc_telemetry.audit import entries, verify
from cmdorc_telemetry.delivery import Worker
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.files import private_dir
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import ensure_identity
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, Ledger

from ..agreement import agree
from .machine import MEMORY
from .process import INSTALL, PROPERTIES, SPEC, record
from .tracer import SUPPORTED, run_until

EVENTS = 3
SOME = 12
EVERY = "MODEL_EVERY_CALL"
"""Variable that asks for every call instead of some."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(1200),
]


class Filed(TelemetryReporter):
    """Appends ids to a file."""

    name = "filed"

    class Settings(Struct):
        path: str

    settings: Settings

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise AssertionError("batches are written")

    async def report_batch(self, batch: Batch) -> None:
        fd = os.open(self.settings.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, "".join(f"{event.payload['event_id']}\n" for event in batch.events).encode())
        os.close(fd)


class Plugin:
    @hookimpl
    def telemetry_reporters(self) -> list[type[TelemetryReporter]]:
        return [Filed]


@pytest.fixture
def home() -> Iterator[Home]:
    root = Path(tempfile.mkdtemp(prefix="killed-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    yield Home(root)
    shutil.rmtree(root)


def decide(home: Home) -> None:
    home.root.mkdir(exist_ok=True)
    home.config.write_text(f'[telemetry.to.team]\nplugin = "filed"\npath = "{home.root / "arrived"}"\n')
    agree(home, spec=SPEC)


def leave(home: Home) -> None:
    """A segment with one event, of a process that is gone."""
    journal = Journal(home.journal, Situation.read({"CMDORC_HOME": str(home.root)}).policy().stamp)
    body = record("command_completed", 0, clock.wall())[1]
    assert journal.append(body.replace(INSTALL.encode(), ensure_identity(home).install_id.encode()))
    journal.close()


def scenario(home: Home, told: int) -> None:
    """Capture three events, say so, import them and what was left behind, deliver, acknowledge, close."""
    telemetry = Telemetry.start(plugins=[Plugin()], environ={"CMDORC_HOME": str(home.root)})
    for _ in range(EVENTS):
        assert telemetry.track("command_completed", PROPERTIES["command_completed"])
        os.write(told, b".")
    assert telemetry.flush(20)
    telemetry.close()


def recover(home: Home) -> None:
    """What the next process does."""
    pipeline = Pipeline(Situation.read({"CMDORC_HOME": str(home.root)}), PluginHost((), (Plugin(),), known=()))

    async def deliver() -> None:
        with closing(pipeline.open_spool()) as spool:
            assert pipeline.pump(spool)
            private_dir(home.locks)
            for route in pipeline.routes():
                worker = Worker(replace(route, trusted=True), spool, home.locks)
                await worker.drain()
                await worker.close()

    asyncio.run(deliver())


def arrivals(home: Home) -> Counter[str]:
    with suppress(FileNotFoundError):
        return Counter((home.root / "arrived").read_text().split())
    return Counter()


def audited(home: Home) -> None:
    """The audit tells of everything that arrived, and the ledger bears it out; also before anybody cleans up."""

    def look() -> tuple[str, Mapping[str, Ledger]]:
        try:
            spool = Spool(home.spool, reading=True)
        except StorageError:  # its file has no tables yet
            return "", {}
        with closing(spool):
            return spool.epoch, {"team": spool.ledger()["team"]} if "team" in spool.ledger() else {}

    assert verify(home, look) == []
    told = Counter(each for entry in entries(home) for each in entry.event_ids)
    assert arrivals(home) <= told, "something left that is not in the audit"
    for entry in entries(home):
        assert set(PROPERTIES["command_completed"]) - {"command_name"} <= set(*entry.fields.values())


def check(home: Home, captured: int) -> None:
    arrived = arrivals(home)
    assert captured <= len(arrived) - 1 <= min(captured + 1, EVENTS), "what was captured has not arrived"
    with closing(sqlite3.connect(home.history)) as db:
        assert db.execute("SELECT count(*) FROM event").fetchone()[0] == len(arrived)
    pipeline = Pipeline(Situation.read({"CMDORC_HOME": str(home.root)}), PluginHost((), (Plugin(),), known=()))
    with closing(pipeline.open_spool()) as spool:
        for name in ("history", "team"):
            ledger = spool.ledger()[name]
            assert ledger.recorded == ledger.acknowledged == len(arrived), str(ledger)
            assert (ledger.pending, sum(ledger.dropped.values())) == (0, 0), str(ledger)
    assert not [path for path in home.journal.glob("*") if path.suffix != ".new"]


def killed_at(home: Home, call: int) -> tuple[bool, int]:
    """Whether the scenario got through, and how many calls it made; whatever happened is made up for."""
    decide(home)
    leave(home)
    reading, writing = os.pipe()
    done, calls = run_until(lambda: scenario(home, writing), call)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        captured = len(pipe.read())
    audited(home)
    recover(home)
    audited(home)
    check(home, captured)
    if done:
        assert captured == EVENTS
    for path in home.root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return done, calls


@pytest.mark.skipif(not SUPPORTED, reason="ptrace is Linux's, and the calls are numbered by processor")
def test_a_process_that_is_killed_between_two_system_calls_loses_and_doubles_nothing(home: Home) -> None:
    done, calls = killed_at(home, -1)
    assert done
    assert calls > 50
    if os.environ.get(EVERY):
        call = 1
        while not killed_at(home, call)[0]:
            call += 1
        print(f"killed at each of {call - 1} calls")
        return
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for call in random.Random(seed).sample(range(1, calls), SOME):
        killed_at(home, call)
