"""The spool's file: made once, private, replaced where it is broken, and honest about a disk that refuses."""

from __future__ import annotations

import os
import re
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.spool.file import RESERVE_BYTES
from cmdorc_telemetry.spool.schema import SCHEMA_VERSION
from cmdorc_telemetry.types import EventResult, Gated, Row, View

SHARED = View(name="d", identity="one")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "spool.db"


def fill(spool: Spool, segment: str = "s", count: int = 1, size: int = 10) -> None:
    rows = tuple(Row(spec="s@1", event="e", version=1, at=number, generation="g", source="here", private=b"{}",
                     shared=b"x" * size) for number in range(count))  # fmt: skip
    assert spool.take_in(segment, Gated(rows=rows), before=0, after=1, drops={})


def recorded(spool: Spool) -> int:
    return spool.ledger()["d"].recorded


def used(path: Path, count: int = 1) -> str:
    """Make a spool with ``count`` events for one destination, and leave it. Its epoch."""
    with closing(Spool(path)) as spool:
        spool.register([SHARED])
        fill(spool, count=count)
        return spool.epoch


def page_of(path: Path) -> int:
    """The size of a page."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA page_size").fetchone()[0]


def damage(path: Path) -> None:
    """Overwrite all pages but the first: SQLite opens such a file, and finds out when it reads."""
    page = page_of(path)
    pages = path.stat().st_size - page
    assert pages > 0
    with path.open("r+b") as file:
        file.seek(page)
        file.write(b"\xa5" * pages)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file grows beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_reopening_keeps_what_was_committed_and_the_epoch(path: Path) -> None:
    epoch = used(path)
    with closing(Spool(path)) as first, closing(Spool(path)) as second:
        assert epoch == first.epoch == second.epoch
        assert (recorded(first), first.moved_aside) == (1, None)
        fill(first, "another")
        assert recorded(second) == 2
    with closing(Spool(path.with_name("other.db"))) as other:
        assert other.epoch != epoch


def test_everything_is_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(Spool(path)) as spool:
            spool.register([SHARED])
            found = modes(path.parent)
            assert set(found) == {path.name + end for end in ("", "-wal", "-shm", ".lock", ".reserve")}
            assert set(found.values()) == {0o600}
        assert modes(path.parent.parent)["spool"] == 0o700
        path.chmod(0o644)
        Spool(path).close()
        assert modes(path.parent)[path.name] == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize(("sync", "level"), [(False, 1), (True, 2)])
def test_each_transaction_reaches_the_disk_where_that_is_asked_for(sync: bool, level: int, path: Path) -> None:
    with closing(Spool(path, sync=sync)) as spool:
        assert spool._ask("PRAGMA synchronous") == [(level,)]


def open_at_once(path: Path, number: int) -> list[tuple[str, Path | None]]:
    """What as many threads found that opened it at the same time: its epoch, and what was moved aside."""
    together = threading.Barrier(number)
    found: list[tuple[str, Path | None]] = []

    def begin() -> None:
        together.wait(10)
        with closing(Spool(path)) as spool:
            found.append((spool.epoch, spool.moved_aside))

    threads = [threading.Thread(target=begin) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_openers_at_once_make_the_schema_once(path: Path) -> None:
    opened = open_at_once(path, 6)
    assert len(opened) == 6
    assert len({epoch for epoch, _ in opened}) == 1


def test_processes_at_once_make_the_schema_once(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from cmdorc_telemetry.spool import Spool
print("ready", flush=True)
sys.stdin.readline()
print(Spool(Path(sys.argv[1])).epoch)
"""
    openers = [subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True) for _ in range(3)]  # fmt: skip
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    said = {opener.communicate(timeout=30)[0] for opener in openers}
    with closing(Spool(path)) as spool:
        assert said == {spool.epoch + "\n"}


def test_a_newer_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    epoch = used(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    message = (
        f"{path} was made by a newer version of cmdorc-telemetry (schema {SCHEMA_VERSION + 1}; "
        f"known here: {SCHEMA_VERSION}). Upgrade this one, with "
        "`pip install --upgrade cmdorc-telemetry`; until then the file stays as it is"
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$") as refused:
        Spool(path)
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        Spool(path, reading=True)
    assert refused.traceback  # which keeps all that was made there, but for what was closed
    assert not path.with_name("spool.db-wal").exists()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT value FROM meta").fetchall() == [(epoch,)]
    assert not list(path.parent.glob("*corrupt*"))


def test_a_file_that_is_no_database_is_moved_aside_by_one_of_those_who_find_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 500)
    found = open_at_once(path, 4)
    assert len(found) == 4
    assert len({epoch for epoch, _ in found}) == 1
    (aside,) = [moved for _, moved in found if moved]
    assert aside.name.startswith("spool.db.corrupt-")
    assert aside.read_bytes() == b"not a database " * 500


def test_damage_that_is_seen_at_once_is_replaced_at_once(path: Path) -> None:
    epoch = used(path)
    damage(path)
    with closing(Spool(path)) as spool:
        assert spool.moved_aside is not None
        assert modes(path.parent)[spool.moved_aside.name] == 0o600
        assert spool.epoch != epoch
        assert spool.ledger() == {}
    assert not path.with_name("spool.db.suspect").exists()
    with closing(Spool(path)) as spool:
        assert spool.moved_aside is None


def test_damage_that_only_a_question_finds_makes_the_next_one_look(path: Path) -> None:
    used(path, count=200)
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name='destination'").fetchone()
    size = page_of(path)
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    with closing(Spool(path, reading=True)) as reader, pytest.raises(StorageError, match="malformed"):
        reader.oldest()
    assert not path.with_name("spool.db.suspect").exists()  # who only asks leaves no trace
    with closing(Spool(path)) as spool, pytest.raises(StorageError, match="malformed"):
        spool.ledger()
    assert modes(path.parent)["spool.db.suspect"] == 0o600
    with closing(Spool(path)) as spool:
        assert spool.moved_aside is not None


def test_a_suspicion_that_was_wrong_costs_nothing(path: Path) -> None:
    epoch = used(path)
    path.with_name("spool.db.suspect").touch()
    with closing(Spool(path)) as spool:
        assert (spool.epoch, recorded(spool), spool.moved_aside) == (epoch, 1, None)
    assert not path.with_name("spool.db.suspect").exists()


def test_what_cannot_be_opened_is_an_error_and_stays(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(path.parent / "elsewhere")
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t(x)")
        db.execute("BEGIN EXCLUSIVE")
        with pytest.MonkeyPatch.context() as patch:
            connecting = sqlite3.connect
            patch.setattr(sqlite3, "connect", lambda *args, **named: connecting(*args, **{**named, "timeout": 0.05}))
            with pytest.raises(StorageError, match=f"^{re.escape(str(path))} cannot be opened: database is locked"):
                Spool(path)
    assert not list(path.parent.glob("*corrupt*"))


def test_a_directory_that_cannot_be_made_is_an_error(path: Path) -> None:
    path.parent.touch()
    with pytest.raises(StorageError, match=f"^{re.escape(str(path.parent))} cannot be created: "):
        Spool(path)


def test_a_reader_creates_and_mends_nothing(path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        Spool(path, reading=True)
    assert not path.parent.exists()
    epoch = used(path)
    path.with_name("spool.db.reserve").unlink()
    before = modes(path.parent)
    with closing(Spool(path, reading=True)) as reader:
        assert (reader.epoch, recorded(reader)) == (epoch, 1)
    assert modes(path.parent) == before
    with closing(Spool(path)) as writer, closing(Spool(path, reading=True)) as reader:
        fill(writer, "more")
        assert recorded(reader) == 2


@pytest.mark.parametrize("replaced", [True, False])
def test_a_spool_whose_file_is_gone_refuses_to_write(replaced: bool, path: Path) -> None:
    with closing(Spool(path)) as spool:
        spool.register([SHARED])
        assert not spool.gone
        path.rename(path.with_name("kept"))
        if replaced:
            path.touch()
        assert spool.gone
        with pytest.raises(StorageError, match=r"spool\.db was moved or deleted"):
            fill(spool)
        assert recorded(spool) == 0


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with closing(Spool(path)) as spool:
        spool.register([SHARED])
        with pytest.raises(KeyboardInterrupt):
            spool.take_in("s", Gated(unreadable=3), before=0, after=1, drops={}, still_there=interrupt)
        fill(spool, "t", count=2)
        assert spool.ledger()["d"].recorded == 2
    closed = f"^{re.escape(str(path))} cannot be used: Cannot operate on a closed database"
    with pytest.raises(StorageError, match=closed):
        spool.withheld()
    with pytest.raises(StorageError, match=closed):
        fill(spool, "u")


def test_a_full_disk_takes_nothing_in_and_the_spool_goes_on_afterwards(path: Path) -> None:
    with closing(Spool(path)) as spool:
        spool.register([SHARED])
        with files_end_at(path.with_name("spool.db-wal").stat().st_size), pytest.raises(StorageError):
            fill(spool, count=50, size=1000)
        assert recorded(spool) == 0
        fill(spool, count=50, size=1000)
        assert recorded(spool) == 50


def test_the_reserve_is_there_from_the_start_and_comes_back_with_room(path: Path) -> None:
    reserve = path.with_name("spool.db.reserve")
    with files_end_at(RESERVE_BYTES - 1):
        epoch = used(path)  # room for the spool, none for the reserve
    assert not reserve.exists()
    with closing(Spool(path)) as spool:
        assert spool.epoch == epoch
    assert reserve.stat().st_size == RESERVE_BYTES
    written = reserve.stat().st_mtime_ns
    Spool(path).close()
    assert reserve.stat().st_mtime_ns == written


def test_an_acknowledgement_is_written_into_the_room_of_the_reserve(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = path.with_name("spool.db.reserve")
    unlink = Path.unlink
    with closing(Spool(path)) as spool:
        spool.register([SHARED])
        fill(spool, count=2)
        lease = spool.lease("d", 10.0, count=1)
        assert lease is not None
        outcome = {item.seq: EventResult("", "accepted") for item in lease.items}
        size = path.with_name("spool.db-wal").stat().st_size
        with files_end_at(size) as _, monkeypatch.context() as patch:

            def make_room(file: Path, missing_ok: bool = False) -> None:
                unlink(file, missing_ok=missing_ok)
                if file == reserve:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size + RESERVE_BYTES, resource.RLIM_INFINITY))

            patch.setattr(Path, "unlink", make_room)
            spool.settle(lease, outcome, 11.0)
        assert spool.ledger()["d"].acknowledged == 1
        assert not reserve.exists()
        again = spool.lease("d", 12.0)
        assert again is not None
        with files_end_at(path.with_name("spool.db-wal").stat().st_size), pytest.raises(StorageError):
            spool.settle(again, {}, 13.0)  # there is none to give up
        assert spool.ledger()["d"].acknowledged == 1
