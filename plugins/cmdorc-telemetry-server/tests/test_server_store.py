"""The SQLite store: the contract of all stores, and what only a file can get wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.spec import TelemetryRegistry
from cmdorc_telemetry_server import ranks
from cmdorc_telemetry_server.ranks import Rank
from cmdorc_telemetry_server.retention import keep_purging
from cmdorc_telemetry_server.sqlite import SQLiteStore
from cmdorc_telemetry_server.store import Store, StoreUnavailable
from cmdorc_telemetry_server.testing import DAY, NOW, TODAY, StoreContract, new_id, record
from cmdorc_telemetry_server.writer import GroupWriter


class TestSQLiteStore(StoreContract):
    def make(self, folder: Path) -> Store:
        return SQLiteStore(folder / "store.db")


@pytest.fixture
async def store(tmp_path: Path):
    store = SQLiteStore(tmp_path / "store.db", timeout=0.1)
    await store.open()
    yield store
    await store.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_only_the_owner_may_read_the_file(store: SQLiteStore, tmp_path: Path) -> None:
    await store.append([record(new_id())])
    assert modes(tmp_path) == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch(0o644)
    store = SQLiteStore(tmp_path / "store.db")
    await store.open()
    await store.close()
    assert modes(tmp_path) == {"store.db": 0o600}


async def test_how_it_is_kept(store: SQLiteStore) -> None:
    con = store._con
    assert con is not None
    assert con.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert con.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert con.execute("SELECT name FROM sqlite_master WHERE type='index'").fetchall() == []
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        con.execute("SELECT rowid FROM event")
    await store.append([record(new_id())])
    assert con.execute("SELECT typeof(id), length(id) FROM event").fetchone() == ("blob", 16)


async def test_what_was_erased_is_in_no_file(store: SQLiteStore, tmp_path: Path) -> None:
    gone = new_id()
    for number in range(300):
        await store.append([record(gone, body=b"unmistakable %d" % number), record(new_id())])
    assert any(b"unmistakable" in content for content in contents(tmp_path).values())
    await store.delete_installs([gone])
    for name, content in contents(tmp_path).items():
        assert b"unmistakable" not in content, name
        assert bytes.fromhex(gone.replace("-", "")) not in content, name


async def test_events_of_an_install_are_not_taken_while_it_is_erased(store: SQLiteStore) -> None:
    gone = new_id()
    await store.append([record(gone)])
    erasing = asyncio.create_task(store.delete_installs([gone]))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="being erased"):
        await store.append([record(gone)])
    assert await erasing == 1
    assert await store.append([record(gone)]) == [True]


async def test_a_locked_file_stores_nothing_and_recovers(store: SQLiteStore) -> None:
    one, other = record(new_id(), 5), record(new_id(), 5)
    with closing(sqlite3.connect(store.path)) as con:
        con.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.append([one])
    assert await store.rank(one.install) is None
    assert await store.append([one, other]) == [True, True]
    assert await store.rank(one.install) == Rank(0, 2, 2)


async def test_a_failing_transaction_takes_nothing_with_it(store: SQLiteStore) -> None:
    assert store._con is not None
    pages = store._con.execute("PRAGMA page_count").fetchone()[0]
    store._con.execute(f"PRAGMA max_page_count={pages + 2}")
    big = [record(new_id(), 5, body=b"x" * 5_000) for _ in range(20)]
    with pytest.raises(StoreUnavailable, match="full"):
        await store.append(big)
    assert await store.aggregate() == {}
    store._con.execute("PRAGMA max_page_count=1000000")
    assert await store.append(big) == [True] * 20
    assert await store.rank(big[0].install) == Rank(0, 20, 20)


async def test_a_purge_by_another_process_is_noticed(store: SQLiteStore) -> None:
    old, new = record(new_id(), 50, day=TODAY - 25), record(new_id(), 60)
    await store.append([old, new])
    other = SQLiteStore(store.path)
    await other.open()
    await other.purge(NOW + 10 * DAY, {}, 90)
    await other.close()
    await store.append([])
    assert await store.rank(old.install) is None
    assert await store.rank(new.install) == Rank(0, 1, 1)


async def test_many_different_durations_are_kept_to_one_percent(store: SQLiteStore) -> None:
    who = new_id()
    await store.append([record(who, 1_000 + number) for number in range(ranks.MOST_DISTINCT + 501)])
    assert store._con is not None
    (kept, own) = store._con.execute(
        "SELECT length(counts), median FROM duration JOIN install USING(install)"
    ).fetchone()
    assert kept < 500
    assert own == pytest.approx(1_750, rel=0.011)


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.append([])
    await store.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"these are no pages of a database, whatever", "not a database"),
        ("CREATE TABLE notes(a)", "no telemetry store"),
        ("PRAGMA application_id=1129599793; PRAGMA user_version=2; CREATE TABLE event(a)", "has format 2"),
    ],
)
async def test_files_that_are_no_store_are_left_alone(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "store.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as con:
            con.executescript(content)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=message):
        await SQLiteStore(path).open()
    with pytest.raises(StorageError, match=message):
        await SQLiteStore(path).aggregate()
    assert path.read_bytes() == before


async def test_a_place_that_cannot_hold_a_store(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        await SQLiteStore(tmp_path / "nowhere" / "store.db").open()
    with pytest.raises(StorageError, match="Is a directory"):
        await SQLiteStore(tmp_path).open()
    with pytest.raises(StorageError, match="there is no store"):
        await SQLiteStore(tmp_path / "store.db").aggregate()


async def test_a_backup_is_whole_and_private(store: SQLiteStore, tmp_path: Path) -> None:
    records = [record(new_id(), 5) for _ in range(50)]
    await store.append(records)
    store.backup(tmp_path / "copy.db")
    await store.append([record(new_id())])
    assert modes(tmp_path)["copy.db"] == 0o600
    copy = SQLiteStore(tmp_path / "copy.db")
    assert sum((await copy.aggregate()).values()) == 50
    await copy.open()
    assert await copy.rank(records[0].install) == Rank(0, 50, 50)
    await copy.close()
    with pytest.raises(StorageError, match="File exists"):
        store.backup(tmp_path / "copy.db")
    with pytest.raises(StorageError, match="there is no store"):
        SQLiteStore(tmp_path / "none.db").backup(tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()


async def test_the_purge_comes_back_every_midnight_and_after_a_failure(
    store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    midnight = NOW // DAY * DAY + 91 * DAY
    await store.append([record(new_id()), record(new_id(), received=midnight - DAY)])
    with closing(sqlite3.connect(store.path)) as con:
        con.execute("BEGIN IMMEDIATE")
        purging = asyncio.create_task(keep_purging(store, TelemetryRegistry.with_core(), lambda: midnight - 0.01))
        while not caplog.records:
            await asyncio.sleep(0.01)
    assert "the daily purge failed" in caplog.text
    while sum((await store.aggregate()).values()) > 1:
        await asyncio.sleep(0.01)
    await store.append([record(new_id())])
    while sum((await store.aggregate()).values()) > 1:
        await asyncio.sleep(0.01)
    purging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await purging


async def test_a_fault_of_the_code_leaves_no_transaction_open(store: SQLiteStore) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        await store.append([record(new_id()), record("no uuid")])
    assert await store.aggregate() == {}
    assert await store.append([record(new_id())]) == [True]


def test_a_writer_takes_no_more_than_it_can_hold() -> None:
    held, sizes = threading.Event(), list[int]()

    def commit(jobs: Sequence[int]) -> Sequence[int]:
        assert held.wait(20)
        sizes.append(len(jobs))
        return [job * 2 for job in jobs]

    def submit(number: int) -> None:
        futures.append(writer.submit(number))

    writer, futures = GroupWriter(commit), list[Future[int]]()
    with pytest.raises(StoreUnavailable, match="busy") as caught:
        deque(map(submit, range(5_000)))
    assert caught.value.after == 1
    assert 1_000 <= len(futures) <= 1_100
    assert futures[-1].cancel()  # a request that was given up
    held.set()
    writer.stop()
    assert [future.result() for future in futures[:-1]] == [number * 2 for number in range(len(futures) - 1)]
    assert sum(sizes) == len(futures) - 1
    assert max(sizes) == 64
