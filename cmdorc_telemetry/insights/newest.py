"""The newest event of each name that this machine recorded. Reads the history, writes nothing."""

from __future__ import annotations

from pathlib import Path

from .reading import opened


def newest_bodies(history: Path) -> dict[str, bytes]:
    """Event → the body of the newest one, with every captured field; empty where there is no history yet.

    Nor is there one in the tables of an earlier version. Raises StorageError where it cannot be read.
    """
    if not history.exists():
        return {}
    with opened(history) as (db, current):
        found = db.execute("SELECT name, max(id), body FROM event GROUP BY name").fetchall() if current else []
    return {name: bytes(body) for name, _, body in found}
