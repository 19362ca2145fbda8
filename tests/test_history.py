"""The history: every event once, names readable by their owner alone, and not for ever."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import clock, history
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.history import KEEP_DAYS, SCHEMA_VERSION, SECOND, HistoryReporter
from cmdorc_telemetry.types import Batch, BatchEvent

NOW = 1_795_316_400.9  # 2026-11-22T03:00:00.9Z


@pytest.fixture(autouse=True)
def _at_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall", lambda: NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def reporter(path: Path) -> Iterator[HistoryReporter]:
    made = HistoryReporter(HistoryReporter.Settings(path=str(path)))
    yield made
    asyncio.run(made.close())


def batch(*bodies: dict[str, Any] | bytes, event: str = "command_completed") -> Batch:
    events = []
    for number, body in enumerate(bodies):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = json.loads(data)
        events.append(BatchEvent(fields.get("event_id", f"number {number}"), event, data))
    return Batch(destination=history.NAME, events=tuple(events))


def body(number: int = 1, seconds: float = NOW, **fields: Any) -> dict[str, Any]:
    return {"event_id": str(uuid.UUID(int=number)), "timestamp": clock.iso(seconds), **fields}


def rows(path: Path) -> list[tuple[Any, ...]]:
    """Id, second, name, body, command, state and duration of each event, by id."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT id, name, body, command, state, duration_ms FROM event").fetchall()
    return sorted((json.loads(row[2])["event_id"], row[0] // SECOND, *row[1:]) for row in found)


async def test_an_event_is_kept_with_its_names(reporter: HistoryReporter, path: Path) -> None:
    fields = body(command_name="Deploy für Ürün", state="failed", duration_ms=1200, secret="only mine")
    given = batch(fields)
    assert await reporter.report_batch(given) is None
    (row,) = rows(path)
    assert row == (fields["event_id"], int(NOW), "command_completed", given.events[0].body, "Deploy für Ürün", "failed",
                   1200)  # fmt: skip


async def test_what_is_delivered_twice_is_kept_once(reporter: HistoryReporter, path: Path) -> None:
    await reporter.report_batch(batch(body(1, state="failed"), body(1, state="success"), body(2)))
    await reporter.report_batch(batch(body(1, state="cancelled"), body(3)))
    assert [(row[0][-1], row[5]) for row in rows(path)] == [("1", "failed"), ("2", None), ("3", None)]


async def test_a_single_event_may_be_reported(reporter: HistoryReporter, path: Path) -> None:
    fields = body(command_name="Tests")
    await reporter.report("command_completed", fields)
    await reporter.report("command_completed", fields)
    (row,) = rows(path)
    assert (row[0], row[2], row[4], json.loads(row[3])) == (
        fields["event_id"], "command_completed", "Tests", fields,
    )  # fmt: skip


async def test_events_go_after_their_time(reporter: HistoryReporter, path: Path) -> None:
    oldest = int(NOW) - KEEP_DAYS * 86_400
    await reporter.report_batch(batch(body(1, oldest - 1), body(2, oldest), body(3)))
    assert [row[0][-1] for row in rows(path)] == ["2", "3"]


async def test_what_was_kept_goes_when_its_time_has_come(
    reporter: HistoryReporter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reporter.report_batch(batch(body(1)))
    monkeypatch.setattr(clock, "wall", lambda: NOW + KEEP_DAYS * 86_400)
    await reporter.report_batch(batch(body(2, NOW + KEEP_DAYS * 86_400)))
    assert [row[0][-1] for row in rows(path)] == ["1", "2"]
    monkeypatch.setattr(clock, "wall", lambda: NOW + KEEP_DAYS * 86_400 + 1)
    await reporter.report_batch(batch())
    assert [row[0][-1] for row in rows(path)] == ["2"]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"command_name": 5, "state": 1, "duration_ms": "long"}, (None, None, None)),
        ({"command_name": ["x"], "state": {"a": 1}, "duration_ms": [1]}, (None, None, None)),
        ({"command_name": None, "state": True, "duration_ms": None}, (None, None, None)),
        ({"duration_ms": 2**53}, (None, None, 2**53)),
        ({"duration_ms": 10**30}, (None, None, None)),
        ({"duration_ms": -(10**30)}, (None, None, None)),
        ({"duration_ms": 1.5}, (None, None, 1.5)),
        ({}, (None, None, None)),
    ],
)
async def test_another_spec_may_mean_something_else_by_a_name(
    reporter: HistoryReporter, path: Path, fields: dict[str, Any], kept: tuple[Any, ...]
) -> None:
    given = batch(body(1, **fields), body(2, command_name="Tests"))
    await reporter.report_batch(given)
    first, second = rows(path)
    assert first[4:] == kept
    assert first[3] == given.events[0].body
    assert second[4] == "Tests"


async def test_an_event_of_no_known_time_does_not_stop_the_others(reporter: HistoryReporter, path: Path) -> None:
    await reporter.report_batch(batch(body(1), {**body(2), "timestamp": "yesterday"}, body(3)))
    assert [row[0][-1] for row in rows(path)] == ["1", "3"]


async def test_a_batch_is_kept_whole_or_not_at_all(reporter: HistoryReporter, path: Path) -> None:
    await reporter.report_batch(batch(body(1)))
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TRIGGER broken BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'disk'); END")
        db.execute("UPDATE event SET id = 0")
        db.commit()
    with pytest.raises(sqlite3.Error):
        await reporter.report_batch(batch(body(2)))
    assert [row[0][-1] for row in rows(path)] == ["1"]


def test_only_its_owner_may_read_it(reporter: HistoryReporter, path: Path) -> None:
    path.touch(mode=0o666)
    path.chmod(0o666)
    asyncio.run(reporter.report_batch(batch(body())))
    with closing(history.connect(path)) as db:
        db.execute("DELETE FROM event")
        files = sorted(path.parent.iterdir())
        assert [each.name for each in files] == [
            "history.db", "history.db-shm", "history.db-wal", "history.db.lock",
        ]  # fmt: skip
        assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}


def test_a_file_that_is_no_database_is_moved_aside(reporter: HistoryReporter, path: Path) -> None:
    path.write_bytes(b"this is no database " * 100)
    asyncio.run(reporter.report_batch(batch(body())))
    (kept,) = path.parent.glob("history.db.corrupt-*")
    assert kept.read_bytes().startswith(b"this is no database")


def test_damage_inside_is_found_once_and_then_replaced(
    reporter: HistoryReporter, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(reporter.report_batch(batch(*(body(number, filler="x" * 500) for number in range(1, 200)))))
    asyncio.run(reporter.close())
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:  # all but the first page, which is all that is read to open it
        file.seek(page)
        file.write(b"\xa5" * (path.stat().st_size - page))
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        asyncio.run(reporter.report_batch(batch(body(1000))))
    asyncio.run(reporter.report_batch(batch(body(1000))))
    assert [row[0][-3:] for row in rows(path)] == ["3e8"]
    assert "the history could not be read and was moved to " in caplog.text


def test_the_database_stays_open_until_somebody_takes_it_away(
    reporter: HistoryReporter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    connect = history.connect
    monkeypatch.setattr(history, "connect", lambda *args, **how: opened.append(1) or connect(*args, **how))
    asyncio.run(reporter.report_batch(batch(body(1))))
    asyncio.run(reporter.report_batch(batch(body(2))))
    assert len(opened) == 1
    path.rename(path.with_name("kept.db"))
    asyncio.run(reporter.report_batch(batch(body(3))))
    assert [row[0][-1] for row in rows(path)] == ["3"]
    path.unlink()
    asyncio.run(reporter.report_batch(batch(body(4))))
    assert [row[0][-1] for row in rows(path)] == ["4"]
    asyncio.run(reporter.close())
    asyncio.run(reporter.close())
    assert len(opened) == 3


def test_events_of_one_second_and_one_checksum_are_all_kept_once(
    reporter: HistoryReporter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmdorc_telemetry.history.zlib.crc32", lambda data: 8)
    for numbers in ((1, 2, 3), (3, 2, 1), (4, 1, 5, 5), (5, 4, 3, 2, 1)):
        asyncio.run(reporter.report_batch(batch(*(body(number) for number in numbers))))
    assert [(row[0][-1], row[1]) for row in rows(path)] == [(str(number), int(NOW)) for number in range(1, 6)]
    with closing(sqlite3.connect(path)) as db:
        found = [number - int(NOW) * SECOND for (number,) in db.execute("SELECT id FROM event ORDER BY id")]
    assert found == [1, 2, 3, 4, 5]


def numbered(*events: tuple[int, int]) -> Batch:
    """A batch of (number in the spool, number of the event)."""
    return Batch(
        destination="history",
        events=tuple(
            BatchEvent(each["event_id"], "command_completed", json.dumps(each).encode(), seq)
            for seq, number in events
            for each in [body(number)]
        ),
    )


def test_a_batch_lies_in_the_order_of_the_spool_and_is_kept_once(reporter: HistoryReporter, path: Path) -> None:
    for _ in range(2):  # the second time because the acknowledgement was lost
        asyncio.run(reporter.report_batch(numbered((7, 3), (8, 1), (9, 2))))
    asyncio.run(reporter.report_batch(numbered((9, 2), (10, 4))))
    with closing(sqlite3.connect(path)) as db:
        found = [number - int(NOW) * SECOND for (number,) in db.execute("SELECT id FROM event ORDER BY id")]
    assert found == [7, 8, 9, 10]
    asyncio.run(reporter.report_batch(numbered((8, 5))))  # of another spool, in the same second
    assert sorted(row[0][-1] for row in rows(path)) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("timestamp", "second"),
    [
        ("2026-11-22T03:00:00Z", int(NOW)),
        ("2026-11-22T03:00:00.999Z", int(NOW)),
        ("2026-11-22T03:00:00", int(NOW)),
        ("2026-11-22T04:00:00+01:00", int(NOW)),
        ("9999-01-01T00:00:00Z", (1 << 34) - 1),
    ],
)
async def test_a_time_is_understood_as_it_may_be_written(
    timestamp: str, second: int, reporter: HistoryReporter, path: Path
) -> None:
    await reporter.report_batch(batch({**body(), "timestamp": timestamp}))
    assert [row[1] for row in rows(path)] == [second]


async def test_a_time_before_there_was_any_is_of_the_first_second_and_gone(
    reporter: HistoryReporter, path: Path
) -> None:
    await reporter.report_batch(batch({**body(), "timestamp": "1903-01-01T00:00:00Z"}, body(2)))
    assert [row[0][-1] for row in rows(path)] == ["2"]


@pytest.mark.parametrize(("sync", "level"), [(False, 1), (True, 2)])
def test_a_batch_reaches_the_disk_where_that_is_asked_for(sync: bool, level: int, path: Path) -> None:
    with closing(history.connect(path, sync=sync)) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (level,)


EARLIER = """
CREATE TABLE event(id TEXT PRIMARY KEY, at INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    command TEXT, state TEXT, duration_ms INTEGER) WITHOUT ROWID;
CREATE INDEX event_by_command ON event(command, at) WHERE command IS NOT NULL;
CREATE INDEX event_by_time ON event(at);
"""


def earlier(path: Path, version: int, count: int = 3) -> None:
    """A history of an earlier version, of some events."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(EARLIER + f"PRAGMA user_version={version};")
        for number in range(1, count + 1):
            fields = body(number, command_name="Tests", state="success", duration_ms=number)
            db.execute(
                "INSERT INTO event VALUES(?,?,?,?,?,?,?)",
                (fields["event_id"], int(NOW), "e", json.dumps(fields).encode(), "Tests", "success", number),
            )
        db.commit()


@pytest.mark.parametrize("version", [0, 1])
async def test_a_history_of_an_earlier_version_goes_on(version: int, reporter: HistoryReporter, path: Path) -> None:
    earlier(path, version)
    await reporter.report_batch(batch(body(3), body(4)))
    assert [(row[0][-1], row[1], row[2], *row[4:]) for row in rows(path)] == [
        *((str(number), int(NOW), "e", "Tests", "success", number) for number in (1, 2, 3)),
        ("4", int(NOW), "command_completed", None, None, None),
    ]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert [name for (name,) in db.execute("SELECT name FROM sqlite_master")] == ["event"]


def test_a_change_of_version_that_is_interrupted_did_not_happen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier(path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(history, "_keep", lambda db, events: db.execute("no SQL"))
        with pytest.raises(sqlite3.OperationalError, match="syntax error"):
            history.connect(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*), min(at) FROM event").fetchone() == (3, int(NOW))


@pytest.mark.parametrize("statement", ["CREATE TABLE recipes(title)", "CREATE TABLE event(title)"])
def test_a_database_of_another_program_is_moved_aside(statement: str, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
    history.connect(path).close()
    (kept,) = path.parent.glob("history.db.corrupt-*")
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("SELECT sql FROM sqlite_master").fetchall() == [(statement,)]


def test_a_history_of_a_later_version_is_left_alone(path: Path) -> None:
    history.connect(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"history\.db was made by a newer version of cmdorc-telemetry \(schema 3; "):
        history.connect(path)
    assert path.read_bytes() == before


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        history.connect(tmp_path / "nowhere" / "history.db")


WRITER = """
import asyncio, json, sys, uuid
from cmdorc_telemetry import clock
from cmdorc_telemetry.history import HistoryReporter
from cmdorc_telemetry.types import Batch, BatchEvent

async def main(path, first):
    reporter = HistoryReporter(HistoryReporter.Settings(path=path))
    for number in range(first, first + 40, 2):
        ids = [str(uuid.UUID(int=each)) for each in (number, number + 1, 10**6)]
        events = [BatchEvent(i, "e", json.dumps({"event_id": i, "timestamp": clock.iso(clock.wall())}).encode())
                  for i in ids]
        await reporter.report_batch(Batch(destination="history", events=tuple(events)))

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_two_processes_write_at_once(path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for first in (0, 40)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    assert [row[0] for row in rows(path)] == [str(uuid.UUID(int=number)) for number in (*range(80), 10**6)]


def test_the_oldest_events_make_room(path: Path) -> None:
    reporter = HistoryReporter(HistoryReporter.Settings(str(path), mib=1))
    for number in range(40):
        bodies = [body(100 * number + each, NOW + number, note="x" * 900) for each in range(50)]
        asyncio.run(reporter.report_batch(batch(*bodies)))
    asyncio.run(reporter.close())
    kept = [row[1] - int(NOW) for row in rows(path)]
    assert kept == sorted(kept)
    assert kept[-1] == 39, "the newest are there"
    assert kept[0] > 0, "the oldest are not"
    assert 500 < len(kept) < 1200
    assert path.stat().st_size < 3 << 20
