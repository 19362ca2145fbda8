"""The history of this machine: a built-in destination of the user's own, read by ``insights``.

Gets private bodies, so that names can be read by the one person they belong to; mode 600, bounded in age. A row's
number is its second and its number in the spool: rows lie in the order of time without an index, a batch goes to one
place of the file, and an event that is delivered twice meets itself.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from . import clock, files
from .errors import newer
from .reporter import TelemetryReporter
from .types import Batch, BatchEvent, BatchResult

log = logging.getLogger("cmdorc_telemetry")

NAME = "history"
KEEP_DAYS = 400
SECOND = 1 << 29
"""How many numbers each second has for its events."""
SCHEMA_VERSION = 2
_PAGE_BYTES = 8 << 10
_LAST = (1 << 34) - 1
"""The last second that numbers reach to: of the year 2514."""
_MOST = 2**53
_SCHEMA = """CREATE TABLE event(id INTEGER PRIMARY KEY, name TEXT NOT NULL, command TEXT, state TEXT,
    duration_ms INTEGER, body BLOB NOT NULL)"""
_INSERT = "INTO event(id, name, command, state, duration_ms, body) VALUES(?,?,?,?,?,?)"
_EARLIER = ["id", "at", "name", "body", "command", "state", "duration_ms"]
"""The columns before version 2: ids were text, and there was an index for each question."""


class _Body(Struct):
    """What is asked for often. Other specs may declare such names too, with types of their own."""

    timestamp: str
    event_id: str = ""
    command_name: Any = None
    state: Any = None
    duration_ms: Any = None


_Row = tuple[int, str, str | None, str | None, float | None, bytes]
_decode = msgspec.json.Decoder(_Body).decode


@lru_cache(maxsize=256)  # most events of a batch are of the same few seconds
def _second(timestamp: str) -> int | None:
    """The second that ``timestamp`` is in; None where it is none."""
    try:
        moment = msgspec.convert(timestamp, datetime)
    except msgspec.ValidationError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return min(max(int(moment.timestamp()), 0), _LAST)


def _row(event: BatchEvent) -> _Row | None:
    """The row that an event becomes; None for one of no known time."""
    body = _decode(event.body)
    second = _second(body.timestamp)
    if second is None:
        return None
    # In the order in which they are delivered, so that a batch goes to one place of the file.
    place = event.seq % SECOND if event.seq else zlib.crc32(event.event_id.encode()) >> 3
    number = second * SECOND + place
    command, state, duration = body.command_name, body.state, body.duration_ms
    return (
        number, event.event, command if isinstance(command, str) else None, state if isinstance(state, str) else None,
        duration if isinstance(duration, int | float) and abs(duration) <= _MOST else None, event.body,
    )  # fmt: skip


def connect(path: Path, *, sync: bool = False, suspect: bool = False) -> sqlite3.Connection:
    """The history database at ``path``, made with mode 600 where it is missing; what can be none is moved aside.

    ``sync``: each batch reaches the disk before it is acknowledged. ``suspect``: look closely whether it is damaged.
    Raises sqlite3.Error, OSError, StorageError.
    """
    with files.FileLock(path.with_name(f"{path.name}.lock")):  # SQLite does not wait while a new file becomes a WAL one
        kept = files.make_way(path)
        try:
            db = _opened(path, sync, suspect)
        except sqlite3.DatabaseError as fault:
            if isinstance(fault, sqlite3.OperationalError):
                raise
            kept = files.set_database_aside(path)
            db = _opened(path, sync)
        if kept is not None:
            log.warning("the history could not be read and was moved to %s; a new one was begun", kept)
    return db


def _opened(path: Path, sync: bool, suspect: bool = False) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        # By path: to open the file and close it again would take the locks of this process's other connections.
        os.chmod(path, 0o600)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise newer(path, version, SCHEMA_VERSION)
        db.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # of a new file
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
        if suspect and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("the file is damaged")
        if version < SCHEMA_VERSION:
            _bring_up_to_date(db)
    except BaseException:
        db.close()
        raise
    return db


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the table; where there is one of an earlier version, its events go over in one transaction."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    columns = [name for _, name, *_ in db.execute("PRAGMA table_info(event)")]
    if tables - {"event"} or columns not in ([], _EARLIER):
        raise sqlite3.DatabaseError("it is another program's")
    with _transaction(db):
        if columns:
            db.execute("ALTER TABLE event RENAME TO earlier")
        db.execute(_SCHEMA)
        if columns:
            for event_id, name, body in db.execute("SELECT id, name, body FROM earlier ORDER BY at"):
                _keep(db, [BatchEvent(event_id, name, body)])
            db.execute("DROP TABLE earlier")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _keep(db: sqlite3.Connection, events: Sequence[BatchEvent]) -> None:
    """Add events, but for those that are there."""
    rows = [row for event in events if (row := _row(event))]
    before = db.total_changes
    db.executemany(f"INSERT OR IGNORE {_INSERT}", rows)
    if db.total_changes - before == len(rows):
        return
    for row in rows:
        number, event_id = row[0], _decode(row[-1]).event_id
        while found := db.execute("SELECT body FROM event WHERE id=?", (number,)).fetchone():
            if _decode(found[0]).event_id == event_id:
                break
            number += 1  # another event of the same second, of a spool that is gone
        else:
            db.execute(f"INSERT {_INSERT}", (number, *row[1:]))


def _bytes(db: sqlite3.Connection) -> int:
    """How much of the file is in use."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {what}").fetchone()[0]) for what in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _make_room(db: sqlite3.Connection, count: int) -> None:
    """Delete more of the oldest events than ``count`` that came; their pages are used again."""
    db.execute("DELETE FROM event WHERE id IN (SELECT id FROM event ORDER BY id LIMIT ?)", (2 * count + 100,))


class HistoryReporter(TelemetryReporter):
    """Keeps every event once, whatever is delivered twice."""

    class Settings(Struct):
        """``path``: the database. ``sync``: whether what is kept survives a power failure. ``mib``: its bound."""

        path: str
        sync: bool = False
        mib: int = 512

    settings: Settings

    _open: tuple[sqlite3.Connection, int] | None = None
    """The database and the file that it was opened for."""
    _suspect = False
    """Whether it was found damaged when it was last written to."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Keep one event."""
        body = msgspec.json.encode(payload)
        await self.report_batch(Batch(destination=NAME, events=(BatchEvent(payload["event_id"], event, body),)))

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        """Keep a batch, in one transaction."""
        try:
            db = self._connected()
            with _transaction(db):
                _keep(db, batch.events)
                db.execute("DELETE FROM event WHERE id < ?", ((int(clock.wall()) - KEEP_DAYS * 86_400) * SECOND,))
                if _bytes(db) > self.settings.mib << 20:
                    _make_room(db, len(batch.events))
        except BaseException as fault:  # whatever it is: begin anew the next time
            self._suspect = type(fault) is sqlite3.DatabaseError
            await self.close()
            raise
        return None

    def _connected(self) -> sqlite3.Connection:
        """The open database; opened again where another file has its name, or none: somebody deleted it."""
        path = Path(self.settings.path)
        if self._open is not None:
            db, inode = self._open
            with suppress(OSError):
                if os.stat(path).st_ino == inode:
                    return db
            db.close()
            self._open = None
        db = connect(path, sync=self.settings.sync, suspect=self._suspect)
        self._open = db, os.stat(path).st_ino
        return db

    async def close(self) -> None:
        """Close the database. It stays open between batches: to open it costs more than a batch."""
        opened, self._open = self._open, None
        if opened is not None:
            opened[0].close()
