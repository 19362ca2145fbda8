"""A spool of an earlier version goes on with everything that is in it; one that is none of ours is moved aside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.spool.schema import SCHEMA_VERSION
from cmdorc_telemetry.types import EventResult, Gated, Ledger, Row, View

NOW = 10_000_000.0
FIRST = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segment(name TEXT PRIMARY KEY, off INTEGER NOT NULL, drops TEXT NOT NULL DEFAULT '{}',
    done REAL) WITHOUT ROWID;
CREATE TABLE event(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, spec TEXT NOT NULL, event TEXT NOT NULL,
    version INTEGER NOT NULL, generation TEXT NOT NULL, source TEXT NOT NULL, private BLOB NOT NULL, shared BLOB);
CREATE TABLE destination(name TEXT PRIMARY KEY, audience TEXT NOT NULL, identity TEXT NOT NULL, kinds TEXT, source TEXT,
    cursor INTEGER NOT NULL, recorded INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0,
    mark REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
    last_report REAL NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '', answer TEXT NOT NULL DEFAULT '{}',
    owner TEXT, removed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE held(destination TEXT, seq INTEGER, state TEXT NOT NULL, tries INTEGER NOT NULL, next_try REAL NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY(destination, seq)) WITHOUT ROWID;
CREATE TABLE dropped(destination TEXT, reason TEXT, n INTEGER NOT NULL, PRIMARY KEY(destination, reason)) WITHOUT ROWID;
CREATE TABLE withheld(reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version=1;
INSERT INTO meta VALUES('epoch', 'e1');
INSERT INTO segment VALUES('s', 900, '{"drops":{"storage-failed":2},"damaged":0,"corrupt":0}', NULL);
INSERT INTO event VALUES(5, 100, 's@1', 'a', 1, 'g', 'here', X'7B7D', X'7B7D'), (7, 300, 's@1', 'a', 1, 'g', 'here',
    X'7B22', NULL), (8, 200, 's@1', 'b', 2, 'g', 'there', X'7B7D', X'7B7D');
UPDATE sqlite_sequence SET seq=20;
INSERT INTO destination(name, audience, identity, cursor, recorded, acked) VALUES('far', 'shared', 'i', 5, 6, 1);
INSERT INTO destination(name, audience, identity, cursor, recorded, acked) VALUES('own', 'private', 'i', 6, 9, 6);
INSERT INTO held VALUES('far', 5, 'dead', 3, 1.5, 'set-aside: no');
INSERT INTO dropped VALUES('far', 'storage-failed', 2), ('far', 'corrupt', 1), ('own', 'storage-failed', 1);
INSERT INTO withheld VALUES('level', 4);
"""
"""The tables of version 1, and a few events: one is set aside, one of them is not shared."""
COMMON = """
CREATE TABLE stored(events INTEGER NOT NULL);
ALTER TABLE held RENAME TO held_1;
CREATE TABLE held(seq INTEGER, destination TEXT, state TEXT NOT NULL, tries INTEGER NOT NULL, next_try REAL NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY(seq, destination)) WITHOUT ROWID;
INSERT INTO held SELECT seq, destination, state, tries, next_try, reason FROM held_1;
DROP TABLE held_1;
CREATE INDEX held_until ON held(destination, state, next_try);
CREATE TABLE lost(reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE kind(id INTEGER PRIMARY KEY, spec TEXT NOT NULL, event TEXT NOT NULL, version INTEGER NOT NULL,
    generation TEXT NOT NULL, source TEXT NOT NULL, rank INTEGER NOT NULL, shareable INTEGER NOT NULL,
    UNIQUE(spec, event, version, generation, source, rank, shareable));
INSERT INTO kind SELECT rowid, spec, event, version, generation, source, 0, shared IS NOT NULL FROM event;
INSERT INTO stored VALUES(3);
INSERT INTO lost VALUES('storage-failed', 2), ('corrupt', 1);
ALTER TABLE event RENAME TO event_1;
CREATE TABLE event(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind INTEGER NOT NULL,
    private BLOB NOT NULL, shared BLOB);
INSERT INTO event SELECT seq, at, seq, private, shared FROM event_1;
UPDATE sqlite_sequence SET seq=20;
DROP TABLE event_1;
PRAGMA user_version=2;
"""
"""What version 2 had instead: what events have in common, once."""
ROWS = [(5, "a", 1, "here", b"{}", b"{}"), (7, "a", 1, "here", b'{"', None), (8, "b", 2, "there", b"{}", b"{}")]


@pytest.fixture(params=[1, 2])
def earlier(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def path(tmp_path: Path, earlier: int) -> Path:
    made = tmp_path / "spool.db"
    with closing(sqlite3.connect(made)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(FIRST + COMMON * (earlier == 2))
    return made


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def columns(path: Path) -> set[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {(table, *column[1:]) for table in tables for column in db.execute(f"PRAGMA table_info({table})")}


def check(spool: Spool) -> None:
    """Everything is there."""
    assert spool.epoch == "e1"
    assert spool.offset("s") == 900
    far, own = spool.ledger()["far"], spool.ledger()["own"]
    assert (far.recorded, far.acknowledged, far.pending, far.set_aside) == (6, 1, 2, 1)
    assert (own.recorded, own.acknowledged, own.pending) == (9, 6, 2)
    for ledger in (far, own):
        assert ledger.recorded == ledger.acknowledged + ledger.pending + sum(ledger.dropped.values())
    assert [(letter.seq, letter.tries, letter.reason) for letter in spool.dead_letters()] == [(5, 3, "set-aside: no")]
    assert spool.withheld() == {"level": 4}
    assert spool.size()[0] == 3
    found = [spool.row(seq) for seq in (5, 7, 8)]
    assert [(seq, row.event, row.version, row.source, row.private, row.shared)
            for (seq, *_), row in zip(ROWS, found, strict=True) if row] == ROWS  # fmt: skip
    assert [row.withheld for row in found if row] == [{}] * 3


def test_an_earlier_spool_goes_on_with_all_that_is_in_it(path: Path) -> None:
    with closing(Spool(path)) as spool:
        check(spool)
        assert spool.drops("new") == {"storage-failed": 2, "corrupt": 1}  # whatever anybody lost before
        row = Row(spec="s@1", event="a", version=1, at=5, generation="g", source="here", private=b"{}", shared=b"{}",
                  withheld={"os": "mask"})  # fmt: skip
        assert spool.take_in("s", Gated(rows=(row,)), before=900, after=901, drops={"storage-failed": 2})
        lease = spool.lease("own", NOW)
        assert lease is not None
        assert [item.seq for item in lease.items] == [7, 8, 21]  # numbers go on, too
        assert spool.row(21) == lease.items[2].row == structs.replace(row, source="")
        spool.settle(lease, {item.seq: EventResult("", "accepted") for item in lease.items}, NOW)
        assert spool.ledger()["own"].acknowledged == 9
    assert version(path) == SCHEMA_VERSION
    with closing(Spool(path.with_name("new.db"))):
        assert columns(path) == columns(path.with_name("new.db"))
    with closing(Spool(path)) as spool:
        assert spool.ledger()["own"] == Ledger(name="own", recorded=10, acknowledged=9, last_report=NOW,
                                               dropped={"storage-failed": 1})  # fmt: skip


def test_who_only_reads_an_earlier_spool_leaves_it_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    with closing(Spool(path, reading=True)) as spool:
        check(spool)
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} == {"spool.db"}


def test_a_change_that_is_interrupted_did_not_happen(
    path: Path, earlier: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        if earlier == 1:
            patch.setattr("cmdorc_telemetry.spool.schema._FROM_1", "-- new tables --\n;\nDELETE FROM event_1;\nno SQL")
        else:
            patch.setattr("cmdorc_telemetry.spool.schema._FROM_2", "ALTER TABLE event ADD COLUMN withheld;\nno SQL")
        with pytest.raises(StorageError, match="cannot be opened: "):
            Spool(path)
        with pytest.raises(StorageError, match="cannot be opened: "):
            Spool(path, reading=True)
    assert version(path) == earlier
    with closing(Spool(path)) as spool:
        check(spool)


def test_an_earlier_spool_that_was_never_used_begins_at_one(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for table in ("event", "held", "destination", "dropped", "sqlite_sequence"):
            db.execute(f"DELETE FROM {table}")
    with closing(Spool(path)) as spool:
        spool.register([View(name="far", identity="i")])
        row = Row(spec="s@1", event="a", version=1, at=5, generation="g", source="here", private=b"{}", shared=b"{}")
        assert spool.take_in("t", Gated(rows=(row,)), before=0, after=1, drops={})
        lease = spool.lease("far", NOW)
        assert lease is not None
        assert [item.seq for item in lease.items] == [1]


def test_tables_that_lack_one_are_somebody_elses(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE withheld")
    with closing(Spool(path)) as spool:
        assert spool.moved_aside is not None
        assert spool.ledger() == {}
