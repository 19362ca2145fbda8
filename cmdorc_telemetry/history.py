"""The history of this machine: a built-in destination of the user's own, read by ``insights``.

Gets private bodies, so that names can be read by the one person they belong to; mode 600, bounded in age.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from . import clock, files
from .reporter import TelemetryReporter
from .types import Batch, BatchEvent, BatchResult

NAME = "history"
KEEP_SECONDS = 400 * 86_400
_MOST = 2**53
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event(id TEXT PRIMARY KEY, at INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    command TEXT, state TEXT, duration_ms INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_by_command ON event(command, at) WHERE command IS NOT NULL;
CREATE INDEX IF NOT EXISTS event_by_time ON event(at);
"""


class _Body(Struct):
    """What is asked for often. Other specs may declare such names too, with types of their own."""

    timestamp: str
    command_name: Any = None
    state: Any = None
    duration_ms: Any = None


def connect(path: Path) -> sqlite3.Connection:
    """The history database at ``path``, made with mode 600 where it is missing. Raises sqlite3.Error, OSError."""
    with files.FileLock(path.with_name(f"{path.name}.lock")):  # SQLite does not wait while a new file becomes a WAL one
        db = sqlite3.connect(path, timeout=10)
        try:
            # By path: to open the file and close it again would take the locks of this process's other connections.
            os.chmod(path, 0o600)
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
    return db


class HistoryReporter(TelemetryReporter):
    """Keeps every event once, whatever is delivered twice."""

    class Settings(Struct):
        """``path``: the database."""

        path: str

    settings: Settings

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
        with closing(connect(Path(self.settings.path))) as db, db:
            db.executemany(
                "INSERT OR IGNORE INTO event VALUES(?, CAST(strftime('%s', ?) AS INTEGER), ?, ?, ?, ?, ?)", rows
            )
            db.execute("DELETE FROM event WHERE at < ?", (int(clock.wall()) - KEEP_SECONDS,))
        return None
