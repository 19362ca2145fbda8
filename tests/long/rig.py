"""What the long tests have in common: a home directory, a real server, processes on them, and the reckoning at the end.

Owns what is started and ends all of it. What the processes do is in ``programs``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from programs import SERIALS, Tally

from cmdorc_telemetry import TelemetryLevel
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.consent import save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.files import reading
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Ledger
from cmdorc_telemetry_server import SQLiteStore

BIN = Path(sys.executable).parent
PROGRAMS = Path(__file__).with_name("programs.py")


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, flush=True)


class Server:
    """The real server on a port that it keeps when it is started again."""

    def __init__(self, store: Path, environ: dict[str, str]) -> None:
        self.store, self._environ = store, environ
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""
        self.starts = 0

    def start(self) -> None:
        """Start it; it listens when this returns."""
        command = [BIN / "cmdorc-telemetry-server", "serve", "--port", str(self._port), "--store", self.store]
        self._process = subprocess.Popen([*command, "--rate-limit", "0"], env=self._environ, stdout=subprocess.PIPE,
                                         text=True)  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server did not start"
        self.endpoint, self.starts = line.split()[-1], self.starts + 1
        self._port = int(self.endpoint.rsplit(":", 1)[1].split("/")[0])

    def tell(self, number: int) -> None:
        """Send a signal to it."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal; harmless where it does not run."""
        if self._process is not None:
            self.tell(number)
            self._process.wait(timeout=30)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@dataclass
class Reckoning:
    """What arrived, held against what was captured."""

    returned: int = 0
    """Captures that returned."""
    unfinished: int = 0
    """Events whose capture was killed between the write and its return: they arrive, too."""
    arrived: int = 0
    """Numbered events that the server stored, each under an event id of its own."""
    missing: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    foreign: list[int] = field(default_factory=list)
    """Numbers that nobody gave."""
    others: int = 0
    """Events without a number: of orchestrators that started or stopped, and of triggers."""


class Rig:
    """One machine: a home directory whose user agreed, a server, a tally, and the processes on them."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        # Without coverage in the processes: they are killed before it could write anything.
        self.environ = {key: value for key, value in os.environ.items()
                        if not key.startswith(("CMDORC", "DO_NOT", "COVERAGE"))}  # fmt: skip
        self.environ["CMDORC_HOME"] = str(self.home.root)
        self.server = Server(folder / "reports.db", self.environ)
        self.tally = Tally(folder / "tally", slots)
        self.processes: list[subprocess.Popen[str]] = []
        self._taken, self._taking = 0, threading.Lock()

    def agree(self) -> None:
        """Say yes to everything that leaves for the server."""
        self.home.root.mkdir()
        self.home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{self.server.endpoint}"\n')
        grant = new_grant(load_spec(CORE), TelemetryLevel.STANDARD, datetime.now(timezone.utc))
        save_decision(self.home, {"cmdorc.core": grant}, identities(load_layer(self.home.config).destinations))

    def slot(self, count: int = 1, *, allowed: int = SERIALS - 1) -> int:
        """The first of ``count`` fresh slots of the tally."""
        with self._taking:
            first, self._taken = self._taken, self._taken + count
        for each in range(first, self._taken):
            self.tally[each, "allowed"] = allowed
        return first

    def waiting(self) -> int:
        """At least so many captured events are not acknowledged yet. By the tally: the ledger costs a scan."""
        return max(self.tally.total("returned") - self.tally.total("sent"), 0)  # what was sent twice counts twice

    def run(self, slot: int, *program: object, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start a program; ``before`` is what starts it (a container)."""
        command = [*before, sys.executable, str(PROGRAMS), str(self.folder / "tally"), str(slot), *map(str, program)]
        process = subprocess.Popen(command, env=self.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def leave(self, process: subprocess.Popen[str]) -> str:
        """Close the standard input of a process, and return what it said when it has ended."""
        output = process.communicate(timeout=60)[0]
        self.processes.remove(process)
        return output

    def kill(self, process: subprocess.Popen[str], *, wait: bool = True) -> int:
        """SIGKILL a process that may be dead already; how it ended."""
        process.kill()
        self.leave(process)
        return process.returncode

    def ledger(self) -> dict[str, Ledger]:
        """The ledger, read from disk by a process that does not deliver; empty before there is one."""
        try:
            spool = Spool(self.home.spool, reading=True)
        except StorageError:
            return {}
        with closing(spool):
            return spool.ledger()

    def deliver(self, seconds: float) -> bool:
        """Let the next process send all there is. Whether nothing waits any more."""
        process = self.run(self.slot(), "deliver", seconds)
        process.wait(timeout=seconds + 60)
        self.leave(process)
        return process.returncode == 0

    def reckon(self) -> Reckoning:
        """Compare what the server stored with the tally, when the server has ended."""
        found = Reckoning()
        seen: set[int] = set()

        async def look() -> None:
            store = SQLiteStore(self.server.store)
            await store.open()
            try:
                async for stored in store.export():
                    if stored.event != "command_completed":
                        found.others += 1
                        continue
                    number = json.loads(stored.body)["duration_ms"]
                    found.arrived += 1
                    if number in seen:
                        found.doubled.append(number)
                    seen.add(number)
            finally:
                await store.close()

        asyncio.run(look())
        for slot in range(self._taken):
            returned, first = self.tally[slot, "returned"], slot * SERIALS
            found.returned += returned
            found.missing.extend(number for number in range(first + 1, first + returned + 1) if number not in seen)
            found.unfinished += first + returned + 1 in seen
        ours = {number for number in seen if self._given(number)}
        found.foreign = sorted(seen - ours)
        return found

    def _given(self, number: int) -> bool:
        slot, count = divmod(number, SERIALS)
        return slot < self._taken and 0 < count <= self.tally[slot, "returned"] + 1

    def faults(self, found: Reckoning) -> list[str]:
        """What is wrong at the end, when everything was delivered: nothing is to be lost, doubled, dropped or left."""
        ledgers = self.ledger()
        faults: list[str] = []

        def expect(what: str, count: int, wanted: int) -> None:
            if count != wanted:
                faults.append(f"{what}: {count:,} instead of {wanted:,}")

        for what in ("missing", "doubled", "foreign"):
            numbers = getattr(found, what)
            if numbers:
                faults.append(f"{what}: {len(numbers):,}, such as {numbers[:5]}")
        stored = found.arrived + found.others
        for name, each in ledgers.items():
            expect(f"recorded of {name}", each.recorded, stored)
            expect(f"acknowledged of {name}", each.acknowledged, stored)
            expect(f"pending of {name}", each.pending, 0)
            expect(f"dropped of {name} {each.dropped}", sum(each.dropped.values()), 0)
        expect("destinations", len(ledgers), 2)
        with closing(reading(self.home.history)) as history:
            expect("events in the history", history.execute("SELECT count(*) FROM event").fetchone()[0], stored)
        left = [name for name in os.listdir(self.home.journal) if not name.endswith(".new")]  # swept after a minute
        expect(f"files left in the journal {left[:5]}", len(left), 0)
        return faults

    def conclude(self, watcher: subprocess.Popen[str], seconds: float) -> tuple[Reckoning, list[str], str]:
        """Deliver the rest, and compare: what arrived, what is wrong, and what ``watcher`` read, as a line."""
        faults = [] if self.deliver(seconds) else ["the next process could not deliver everything"]
        *wrong, readings = self.leave(watcher).splitlines()
        self.server.end()
        found = self.reckon()
        return found, [*faults, *wrong, *self.faults(found)], f"{readings} by another process, {len(wrong)} wrong"

    def end(self) -> None:
        """End whatever runs."""
        for process in self.processes[:]:
            self.kill(process)
        self.server.end(signal.SIGKILL)


@contextmanager
def rig(slots: int) -> Iterator[Rig]:
    """A machine with a server that listens, in a folder that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="cmdorc-long-") as name:
        made = Rig(Path(name), slots)
        try:
            made.server.start()
            made.agree()
            yield made
        finally:
            made.end()


def verdict(test: Callable[[], list[str]]) -> int:
    """Run a test that returns what is wrong, say so, and return the exit code. Cleans up also after a SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    faults = test()
    for fault in faults:
        say(f"WRONG       {fault}")
    return bool(faults)


def until(condition: Callable[[], bool], seconds: float, pause: float = 0.01) -> bool:
    """Wait for ``condition``, at most so long. Whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
