"""Programs that live long, a server on loopback, and people who decide otherwise meanwhile, each a real process."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.testing import FaultServer
from cmdorc_telemetry.types import Ledger

from ..waiting import LONG, until

"""Seconds after which a condition that has not come true never will."""

PROGRAM = """
import sys, time
from cmdorc_telemetry import Telemetry, TelemetryConfig, TelemetryLevel, clock, recorder
from cmdorc_telemetry.delivery import thread
from cmdorc_telemetry.lifecycle import CompletedRun

thread.LOOK_SECONDS, recorder.START_SECONDS = 0.05, float(sys.argv[1])  # so that it need not be waited for
wall, ahead = clock.wall, [0.0]
clock.wall = lambda: wall() + ahead[0]

def run(number):
    telemetry.fire("cmdorc_completed", CompletedRun(
        run_id="r", command_name="secret", state="success", duration=number / 1000, session_id="s", cwd="/a/b/c"))

def forever():
    import threading
    sys.setswitchinterval(1e-5)
    def work(number):
        while True:
            run(number)
            time.sleep(0.0005)  # or the spool would be full
    for number in range(2):
        threading.Thread(target=work, args=(number,), daemon=True).start()

telemetry = None
print("ready", flush=True)
for line in sys.stdin:
    print(repr(eval(line)) if not line.startswith("!") else exec(line[1:]), flush=True)
"""
DECIDE = """
import sys, time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from cmdorc_telemetry.config import TelemetryLevel, load_layer
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.consent import *
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.spec import CORE, load_spec
home, spec, level, seconds = Home(Path(sys.argv[1])), sys.argv[2], sys.argv[3], float(sys.argv[4])
now = datetime.fromtimestamp(time.time(), timezone.utc)
destinations = identities(load_layer(home.config).destinations)
if level == "no":
    save_decision(home, {spec: Grant()}, destinations)
else:
    grant = new_grant(load_spec(CORE), TelemetryLevel(level), now)
    if level == "debug":
        grant = grant._replace(debug_expires=now + timedelta(seconds=seconds))
    save_decision(home, {spec: grant}, destinations)
"""


class Program:
    """A process that records; it does what it is told, line by line."""

    def __init__(self, environ: dict[str, str], waits: float) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(waits)], env=environ, text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __call__(self, code: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(code + "\n")
        self._process.stdin.flush()
        answer = self._line()
        assert answer, f"it died of {code}"
        return answer

    def start(self, how: str = "") -> Program:
        self(f"!telemetry = Telemetry.start({how})")
        return self

    def run(self, *numbers: int) -> Program:
        """Runs end, each of so many milliseconds: by that it is known again."""
        for number in numbers:
            self(f"run({number})")
        return self

    def flush(self) -> bool:
        return self("telemetry.flush(20)") == "True"

    def stamp(self) -> str:
        return self("telemetry._recorder.journal._generation").strip("'")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        """Let it come to its end by itself."""
        if self._process.poll() is None:
            self._process.communicate("", timeout=LONG)
            assert self._process.returncode == 0


class Machine:
    """A home directory whose one shared destination is a server on loopback."""

    def __init__(self, root: Path, server: FaultServer) -> None:
        self.home, self.server = Home(root), server
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT", "CI"))}
        self.environ = {**kept, "CMDORC_HOME": str(root)}
        root.mkdir()
        self.configure()
        self._programs: list[Program] = []

    def configure(self, plugins: str = '"http"', more: str = "") -> None:
        self.home.config.write_text(
            f'[telemetry]\nplugins = [{plugins}]\nendpoint = "{self.server.endpoint}"\n{more}'
            "[telemetry.bounds]\nbatch_seconds = 1\npause_seconds = 1\n"
        )

    def program(self, how: str = "", *, waits: float = 0.0) -> Program:
        """A program that begins to deliver when it has lived for so many seconds."""
        self._programs.append(Program(self.environ, waits).start(how))
        return self._programs[-1]

    def decide(self, level: str, *, spec: str = "cmdorc.core", seconds: float = 1e6) -> str:
        """Another process writes down another decision. Its generation."""
        subprocess.run([sys.executable, "-c", DECIDE, str(self.home.root), spec, level, str(seconds)],
                       env=self.environ, check=True, timeout=LONG)  # fmt: skip
        return self.generation()

    def command(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """What a command says, a process of its own."""
        done = subprocess.run([sys.executable, "-m", "cmdorc_telemetry", *words], env=self.environ,
                              capture_output=True, text=True, check=False, timeout=LONG)  # fmt: skip
        assert done.returncode in codes, done.stderr
        return done.stdout

    def generation(self) -> str:
        return self.home.consent.read_text().partition('generation = "')[2].partition('"')[0]

    def noticed(self, program: Program, level: str = "") -> None:
        """Wait until a program records under the decision of now, and at that level, if one is given."""
        until(lambda: program.stamp().startswith(f"{self.generation()}/{level}"), "the new decision")

    def waiting(self, *numbers: int) -> None:
        """Wait until these are imported, and sending has failed: from now on a batch is soon over."""
        until(lambda: set(numbers) <= self.stored().keys(), "the import")
        until(lambda: self.ledger().failures, "a failure")

    # -- what came of it ----------------------------------------------------------------------------------------------

    @property
    def got(self) -> dict[int, dict[str, Any]]:
        """All that ever came to the server, whatever it answered: the number of a run → its body."""
        posts = [request for request in self.server.seen if request.method == "POST"]
        events = [json.loads(line) for request in posts for line in request.plain.splitlines()]
        return {each["duration_ms"]: each for each in events}

    def levels(self) -> dict[int, str]:
        return {number: body["level"] for number, body in sorted(self.got.items())}

    def ledger(self, name: str = "http") -> Ledger:
        with closing(Spool(self.home.spool, reading=True)) as spool:
            return spool.ledger().get(name, Ledger(name=name))

    def _rows(self) -> list[tuple[str, bytes, bytes | None]]:
        try:
            with closing(sqlite3.connect(f"file:{self.home.spool}?mode=ro", uri=True)) as db:
                return db.execute("SELECT generation, private, shared FROM event JOIN kind ON kind=id").fetchall()
        except sqlite3.OperationalError:  # there are no tables yet
            return []

    def stored(self) -> dict[int, tuple[str, dict[str, Any], dict[str, Any] | None]]:
        """The rows of the spool: the number of a run → generation, private body, shared body."""
        found = {}
        for generation, private, shared in self._rows():
            body = json.loads(private)
            found[body["duration_ms"]] = (generation, body, None if shared is None else json.loads(shared))
        return found

    def history(self) -> dict[int, dict[str, Any]]:
        with closing(sqlite3.connect(self.home.history)) as db:
            bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM event")]
        return {body["duration_ms"]: body for body in bodies}

    def conserved(self) -> None:
        """The identity holds for every destination."""
        try:
            with closing(Spool(self.home.spool, reading=True)) as spool:
                ledgers = spool.ledger()
        except StorageError:
            return
        for ledger in ledgers.values():
            assert ledger.recorded == ledger.acknowledged + ledger.pending + sum(ledger.dropped.values()), str(ledger)

    def identities(self) -> dict[str, tuple[set[str], set[str]]]:
        """Generation → the install ids, and the hashes of the one command, of the events that are stored."""
        found: dict[str, tuple[set[str], set[str]]] = {}
        for generation, private, _ in self._rows():
            body = json.loads(private)
            ids, hashes = found.setdefault(generation.partition("/")[0], (set(), set()))
            ids.add(body["anonymous_install_id"])
            hashes.add(body["hashed_command_name"])
        return found

    def end(self) -> None:
        for program in self._programs:
            program.kill()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path, server: FaultServer) -> Iterator[Machine]:
    made = Machine(tmp_path / "home", server)
    yield made
    made.end()
    made.conserved()
