"""The file of a state: how it is opened, its tables, its version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cmdorc_telemetry.errors import newer

SCHEMA_VERSION = 1
_BUSY_SECONDS = 5.0
_TABLES = (
    "TABLE IF NOT EXISTS times(begun INTEGER NOT NULL, told INTEGER NOT NULL)",
    "TABLE IF NOT EXISTS family(name TEXT PRIMARY KEY, kind TEXT NOT NULL, unit TEXT NOT NULL, help TEXT NOT NULL, "
    "edges TEXT NOT NULL) WITHOUT ROWID",
    "TABLE IF NOT EXISTS sample(service TEXT, metric TEXT, attributes TEXT, part TEXT, value REAL NOT NULL, "
    "at REAL NOT NULL, changed INTEGER NOT NULL, PRIMARY KEY(service, metric, attributes, part)) WITHOUT ROWID",
    "INDEX IF NOT EXISTS unsent ON sample(changed) WHERE changed > 0",
    "TABLE IF NOT EXISTS label(name TEXT, value TEXT, seen REAL NOT NULL, PRIMARY KEY(name, value)) WITHOUT ROWID",
    "TABLE IF NOT EXISTS counted(id BLOB PRIMARY KEY, number INTEGER NOT NULL, arrived INTEGER NOT NULL) WITHOUT ROWID",
)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """The file, opened; with the mode ``rwc`` also where there is none. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    try:  # what is acknowledged must outlive a power cut: events do not come again
        db.execute("PRAGMA synchronous=EXTRA")
    except BaseException:  # it looks into the file for that
        db.close()
        raise
    return db


def unreadable(fault: sqlite3.DatabaseError) -> bool:
    """Whether the file is no database, or a broken one. What is derived from this is of a full disk and the like."""
    return type(fault) is sqlite3.DatabaseError


def check(db: sqlite3.Connection, path: Path) -> int:
    """The version of the file. Raises StorageError for one of a later version of this plugin."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise newer(path, version, SCHEMA_VERSION)
    return version


def make(db: sqlite3.Connection, begun: int) -> None:
    """Make the tables of a file that has none, or not all. ``begun``: nanoseconds since the epoch."""
    db.execute("BEGIN IMMEDIATE")
    for each in _TABLES:
        db.execute(f"CREATE {each}")
    db.execute("INSERT INTO times VALUES(?,?)", (begun, begun))
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    db.execute("COMMIT")
