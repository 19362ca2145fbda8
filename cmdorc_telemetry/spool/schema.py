"""The tables of the spool, and what to do with a file that has other ones: bring it up to date, refuse it, move it.

A file of an older version is changed within one transaction; one of a newer version is refused. One that is no
spool raises ``sqlite3.DatabaseError``, as SQLite itself does for a file that is no database.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from ..errors import newer

SCHEMA_VERSION = 3
_EVENTS = """
CREATE TABLE kind(id INTEGER PRIMARY KEY, spec TEXT NOT NULL, event TEXT NOT NULL, version INTEGER NOT NULL,
    generation TEXT NOT NULL, source TEXT NOT NULL, rank INTEGER NOT NULL, shareable INTEGER NOT NULL,
    UNIQUE(spec, event, version, generation, source, rank, shareable));
CREATE TABLE event(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind INTEGER NOT NULL,
    private BLOB NOT NULL, shared BLOB, withheld TEXT);
CREATE TABLE stored(events INTEGER NOT NULL);
CREATE TABLE held(seq INTEGER, destination TEXT, state TEXT NOT NULL, tries INTEGER NOT NULL, next_try REAL NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY(seq, destination)) WITHOUT ROWID;
CREATE INDEX held_until ON held(destination, state, next_try);
CREATE TABLE lost(reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segment(name TEXT PRIMARY KEY, off INTEGER NOT NULL, drops TEXT NOT NULL DEFAULT '{}',
    done REAL) WITHOUT ROWID;
CREATE TABLE destination(name TEXT PRIMARY KEY, audience TEXT NOT NULL, identity TEXT NOT NULL, kinds TEXT, source TEXT,
    cursor INTEGER NOT NULL, recorded INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0,
    mark REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
    last_report REAL NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '', answer TEXT NOT NULL DEFAULT '{}',
    owner TEXT, removed INTEGER NOT NULL DEFAULT 0, policy TEXT NOT NULL DEFAULT '{}',
    policy_at REAL NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE dropped(destination TEXT, reason TEXT, n INTEGER NOT NULL, PRIMARY KEY(destination, reason)) WITHOUT ROWID;
CREATE TABLE withheld(reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""
# Version 1 had the names of an event in its row, and did not know what was lost before a destination was there.
_FROM_1 = """
ALTER TABLE event RENAME TO event_1;
ALTER TABLE held RENAME TO held_1;
-- new tables --
INSERT INTO kind(spec, event, version, generation, source, rank, shareable)
    SELECT DISTINCT spec, event, version, generation, source, 0, shared IS NOT NULL FROM event_1;
INSERT INTO event(seq, at, kind, private, shared)
    SELECT seq, at, kind.id, private, shared FROM event_1 JOIN kind USING(spec, event, version, generation, source)
    WHERE shareable = (shared IS NOT NULL);
DELETE FROM sqlite_sequence WHERE name='event';
UPDATE sqlite_sequence SET name='event' WHERE name='event_1';
INSERT INTO stored SELECT count(*) FROM event;
INSERT INTO held(seq, destination, state, tries, next_try, reason)
    SELECT seq, destination, state, tries, next_try, reason FROM held_1;
INSERT INTO lost SELECT reason, max(n) FROM dropped WHERE reason IN ('storage-failed', 'corrupt') GROUP BY reason;
DROP TABLE held_1;
DROP TABLE event_1;
"""
# Version 2 did not know what anonymizers removed, nor what receivers ask less of.
_POLICY = """
ALTER TABLE destination ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
ALTER TABLE destination ADD COLUMN policy_at REAL NOT NULL DEFAULT 0;
"""
_FROM_2 = """
ALTER TABLE event ADD COLUMN withheld TEXT;
"""
_TABLES = {"meta", "segment", "event", "destination", "held", "dropped", "withheld"}
"""Those of every version."""


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """The version of the tables in a file; 0 for an empty one. Raises StorageError for a newer one."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if tables and not ("meta" in tables and db.execute("SELECT 1 FROM meta WHERE key='epoch'").fetchone()):
        raise sqlite3.DatabaseError("it is another program's")
    if version > SCHEMA_VERSION:
        raise newer(path, version, SCHEMA_VERSION)
    if tables and not (version and tables >= _TABLES):
        raise sqlite3.DatabaseError("it is another program's")
    return int(version) if tables else 0


def bring_up_to_date(db: sqlite3.Connection, version: int) -> str:
    """Make the tables, or change those of an older ``version``, in one transaction. The epoch of the file."""
    if version < SCHEMA_VERSION:
        _change(db, version)
    (epoch,) = db.execute("SELECT value FROM meta WHERE key='epoch'").fetchone()
    return str(epoch)


def _change(db: sqlite3.Connection, version: int) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        from_1 = _FROM_1.replace("-- new tables --\n", _EVENTS.lstrip()) + _POLICY
        script = (_SCHEMA + _EVENTS, from_1, _FROM_2 + _POLICY)[version]
        for statement in script.split(";\n"):
            db.execute(statement)
        if version == 0:
            db.execute("INSERT INTO meta VALUES('epoch', ?)", (os.urandom(8).hex(),))
            db.execute("INSERT INTO stored VALUES(0)")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
