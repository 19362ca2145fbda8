"""The history of this machine: a built-in destination of the user's own, read by ``insights``.

Gets private bodies, so that names can be read by the one person they belong to; mode 600, bounded in age.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from . import clock, files
from .errors import StorageError
from .reporter import TelemetryReporter
from .types import Batch, BatchEvent, BatchResult

NAME = "history"
KEEP_SECONDS = 400 * 86_400
SCHEMA_VERSION = 1
_MOST = 2**53
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event(id TEXT PRIMARY KEY, at INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    command TEXT, state TEXT, duration_ms INTEGER);
CREATE INDEX IF NOT EXISTS event_by_command ON event(command, at) WHERE command IS NOT NULL;
CREATE INDEX IF NOT EXISTS event_by_time ON event(at);
"""


class _Body(Struct):
    """What is asked for often. Other specs may declare such names too, with types of their own."""

    timestamp: str
    command_name: Any = None
    state: Any = None
    duration_ms: Any = None


log = logging.getLogger("cmdorc_telemetry")


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
    db = sqlite3.connect(path, timeout=10)
    try:
        # By path: to open the file and close it again would take the locks of this process's other connections.
        os.chmod(path, 0o600)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StorageError(f"{path} was made by a newer version (schema {version}): upgrade this one")
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if version == 0 and tables - {"event"}:
            raise sqlite3.DatabaseError("it is another program's")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
        if suspect and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("the file is damaged")
        db.executescript(f"{_SCHEMA} PRAGMA user_version={SCHEMA_VERSION};")
    except BaseException:
        db.close()
        raise
    return db


class HistoryReporter(TelemetryReporter):
    """Keeps every event once, whatever is delivered twice."""

    class Settings(Struct):
        """``path``: the database; ``sync``: power loss takes nothing that was acknowledged."""

        path: str
        sync: bool = False

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
        rows = []
        for each in batch.events:
            body = msgspec.json.decode(each.body, type=_Body)
            command, state, duration = body.command_name, body.state, body.duration_ms
            if not isinstance(duration, int | float) or abs(duration) > _MOST:
                duration = None
            rows.append((
                each.event_id, body.timestamp, each.event, each.body, command if isinstance(command, str) else None,
                state if isinstance(state, str) else None, duration,
            ))  # fmt: skip
        db = self._database()
        try:
            with db:
                db.executemany(
                    "INSERT OR IGNORE INTO event VALUES(?, CAST(strftime('%s', ?) AS INTEGER), ?, ?, ?, ?, ?)", rows
                )
                db.execute("DELETE FROM event WHERE at < ?", (int(clock.wall()) - KEEP_SECONDS,))
        except sqlite3.Error as fault:  # whatever it is: begin anew the next time
            self._suspect = type(fault) is sqlite3.DatabaseError
            await self.close()
            raise
        return None

    def _database(self) -> sqlite3.Connection:
        """The open database; opened again where another file has its name, or none: somebody deleted it."""
        path = Path(self.settings.path)
        if self._open is not None:
            db, inode = self._open
            with suppress(OSError):
                if os.stat(path).st_ino == inode:
                    return db
            db.close()
        db = connect(path, sync=self.settings.sync, suspect=self._suspect)
        self._open = db, os.stat(path).st_ino
        return db

    async def close(self) -> None:
        """Close the database."""
        opened, self._open = self._open, None
        if opened is not None:
            opened[0].close()
