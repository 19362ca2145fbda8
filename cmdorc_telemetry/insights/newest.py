"""The newest event of each name that this machine recorded. Reads the history, writes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from .. import files
from ..errors import StorageError
from ..history import SCHEMA_VERSION


def newest_bodies(history: Path) -> dict[str, bytes]:
    """Event → the body of the newest one, with every captured field; empty where there is no history yet.

    Raises StorageError where it cannot be read.
    """
    if not history.exists():
        return {}
    try:
        with closing(files.reading(history)) as db:
            if db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                return {}  # of another version, which only what writes to it may change
            found = db.execute("SELECT name, max(id), body FROM event GROUP BY name").fetchall()
    except sqlite3.Error as fault:
        raise StorageError(f"{history} cannot be read: {fault}") from fault
    return {name: bytes(body) for name, _, body in found}
