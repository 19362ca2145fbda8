"""A full disk: what could be written is delivered once, what could not is counted, and with room all goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DISK = Path(__file__).with_name("disk.py")
BEGIN = """
import json, logging, os, sqlite3, sys, time
from contextlib import closing, suppress
from pathlib import Path
from cmdorc_telemetry import Telemetry, TelemetryReporter
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.audit import entries, verify
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.types import Batch

DEADLINE = 20.0
place = Path(sys.argv[1])
said = []

class Keeping(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("cmdorc_telemetry").addHandler(Keeping(logging.WARNING))

class Keeper(TelemetryReporter):
    def __init__(self, then=lambda: None):
        super().__init__()
        self.ids, self.then = [], then

    async def report(self, event, payload):
        raise AssertionError

    async def report_batch(self, batch):
        self.ids += [each.event_id for each in batch.events]
        self.then()

def start(home, reporter=None):
    environ = {"CMDORC_HOME": str(home.root), "CMDORC_TELEMETRY": "minimal"}
    application, reporters = CMDORC._replace(version="0.12.0"), [] if reporter is None else [reporter]
    return Telemetry.start(application, environ=environ, reporters=reporters)

def track(telemetry):
    body = {"state": "success", "final": True, "manual": True, "duration_ms": 5}
    return bool(telemetry.track("command_completed", body))

def until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)

def ledgers(home):
    with suppress(StorageError), closing(Spool(home.spool, reading=True)) as spool:
        return spool.ledger()
    return {}

def audited(home, ids):
    with closing(Spool(home.spool, reading=True)) as spool:
        shared = {name: each for name, each in spool.ledger().items() if name != "history"}
        wrong = verify(home, lambda: (spool.epoch, shared))
    assert not wrong, wrong
    assert set(ids) <= {each for entry in entries(home) for each in entry.event_ids}
"""

Run = Callable[..., Any]


def allowed(folder: Path) -> bool:
    """Whether this machine lets everybody have file systems of their own."""
    (folder / "empty.py").touch()
    (folder / "disk").mkdir()
    command = [sys.executable, DISK, "file-system", folder / "disk", folder / "empty.py"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The disks that can be had here, the best first."""
    return ["file-system", "limit"] if allowed(tmp_path_factory.mktemp("probe")) else ["limit"]


@pytest.fixture(params=["file-system", "limit"])
def full(request: pytest.FixtureRequest, kinds: list[str], tmp_path: Path, environ: dict[str, str]) -> Run:
    """Runs a script on a disk, and reads what it prints as JSON."""
    kind = request.param if request.param in kinds else kinds[0]

    def run(code: str) -> Any:
        place, script = tmp_path / "disk", tmp_path / "script.py"
        place.mkdir()
        script.write_text(BEGIN + textwrap.dedent(code), encoding="utf-8")
        command = [sys.executable, DISK, kind, place, script, place]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_what_is_captured_meanwhile_is_counted_and_what_comes_afterwards_recorded(full: Run) -> None:
    told = full(
        """
        home = Home(place / "home")
        telemetry = start(home)
        before = [track(telemetry) for _ in range(5)]
        assert telemetry.flush(DEADLINE)
        fill()
        during = [track(telemetry) for _ in range(300)]
        free()
        until(lambda: track(telemetry))
        after = [track(telemetry) for _ in range(4)]
        lost = dict(telemetry._recorder.journal.lost)
        telemetry.close()
        again = start(home)
        assert again.flush(DEADLINE)
        again.close()
        it = ledgers(home)["history"]
        print(json.dumps({
            "before": before, "during": during, "after": after, "lost": lost, "recorded": it.recorded,
            "acknowledged": it.acknowledged, "pending": it.pending, "dropped": it.dropped, "said": said,
        }))
        """
    )
    done = told["during"].count(True)
    assert (told["before"], told["after"]) == ([True] * 5, [True] * 4)
    assert done < 300
    assert told["during"] == sorted(told["during"], reverse=True)
    assert told["acknowledged"] == 5 + done + 1 + 4
    # The try that ended the trouble may itself have failed a few times before.
    assert told["dropped"]["storage-failed"] + sum(told["lost"].values()) >= 300 - done
    assert told["dropped"].keys() == {"storage-failed"}
    assert told["recorded"] == told["acknowledged"] + told["dropped"]["storage-failed"]
    assert (told["pending"], len(told["said"])) == (0, 1)


def test_whatever_room_is_left_nothing_is_lost_unseen_or_sent_twice(full: Run) -> None:
    """The room ends in headers, frames, the schema, the log and the commits of SQLite, acknowledgements."""
    tried = full(
        """
        import shutil
        tried = []
        for room in [*range(16), *range(16, 120, 8)]:
            home, keeper = Home(place / f"home-{room}"), Keeper()
            home.root.mkdir()
            fill(room)
            first = start(home)
            done = [track(first) for _ in range(40)].count(True)
            first.flush(0.3)
            done += [track(first) for _ in range(10)].count(True)
            free()
            assert first.flush(DEADLINE), room  # what was refused before is tried again
            first.close()
            second = start(home)
            recording = second.recording
            assert second.flush(DEADLINE), room
            second.close()
            it = ledgers(home).get("history")
            tried.append([room, done, recording, it.recorded, it.acknowledged, it.pending, it.dropped, said[:]])
            said.clear()
            with closing(sqlite3.connect(home.history)) as db:
                assert not it.acknowledged or db.execute("SELECT count(*) FROM event").fetchone() == (it.acknowledged,)
            until(lambda: shutil.rmtree(home.root, ignore_errors=True) or not home.root.exists())
        print(json.dumps(tried))
        """
    )
    for room, done, recording, recorded, acknowledged, pending, dropped, said in tried:
        assert recording, room
        assert (acknowledged, pending) == (done, 0), room
        assert recorded == acknowledged + sum(dropped.values()), room
        assert dropped.keys() <= {"storage-failed"}, room
        assert len(said) <= 1, (room, said)
    assert {done for _, done, *_ in tried} >= {0, 50}


def test_an_acknowledgement_finds_room_and_nothing_is_sent_twice(full: Run) -> None:
    told = full(
        """
        home = Home(place / "home")
        keeper = Keeper(fill)
        telemetry = start(home, keeper)
        for _ in range(40):
            assert track(telemetry)
        def settled():
            return any(each.acknowledged == 40 for name, each in ledgers(home).items() if name.startswith("code-"))
        telemetry.flush(1)
        assert len(keeper.ids) >= 40
        audited(home, keeper.ids)
        limited = not (place / "ballast").exists()
        if limited:  # there is no reserve that could help: nothing is acknowledged before there is room
            keeper.then = lambda: None
            free()
            assert telemetry.flush(DEADLINE)
        assert settled()
        more = [track(telemetry) for _ in range(10)].count(True)
        keeper.then = lambda: None
        if not limited:
            free()
        assert telemetry.flush(DEADLINE)
        counts = [len(keeper.ids), len(set(keeper.ids)), more, limited]
        telemetry.close()
        audited(home, keeper.ids)
        print(json.dumps(counts))
        """
    )
    sent, unique, more, limited = told
    assert unique == 40 + more
    if not limited:
        assert sent == unique


def test_without_room_for_the_audit_nothing_leaves(full: Run) -> None:
    """Whatever room is left: what left is told of, and with room again all of it leaves."""
    tried = full(
        """
        import shutil
        tried = []
        for room in [*range(0, 120, 6)]:
            home, keeper = Home(place / f"home-{room}"), Keeper()
            home.root.mkdir()
            telemetry = start(home, keeper)
            for _ in range(40):
                assert track(telemetry)
            fill(room)
            telemetry.flush(0.3)
            early = len(keeper.ids)
            if home.spool.exists() and ledgers(home):
                audited(home, keeper.ids)
            free()
            assert telemetry.flush(DEADLINE), room
            telemetry.close()
            audited(home, keeper.ids)
            tried.append([room, early, len(set(keeper.ids))])
            until(lambda: shutil.rmtree(home.root, ignore_errors=True) or not home.root.exists())
        print(json.dumps(tried))
        """
    )
    assert {unique for _, _, unique in tried} == {40}
