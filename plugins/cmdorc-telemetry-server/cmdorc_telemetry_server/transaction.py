"""What one transaction of the SQLite store does: events, the durations beside them, deletions. No threads, no files.

The schema is here; who opens, commits and closes is in ``sqlite.py``.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from .drops import Drops
from .ranks import WINDOW_DAYS, compact, median, merge
from .store import Record

SCHEMA = """
CREATE TABLE event(id BLOB PRIMARY KEY, received INTEGER NOT NULL, install BLOB NOT NULL,
                   spec TEXT NOT NULL, event TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE install(install BLOB PRIMARY KEY, seen INTEGER NOT NULL, median REAL) WITHOUT ROWID;
CREATE TABLE duration(install BLOB, day INTEGER, counts BLOB NOT NULL, PRIMARY KEY(install, day)) WITHOUT ROWID;
CREATE TABLE drops(install BLOB, epoch TEXT, seen INTEGER NOT NULL, counts BLOB NOT NULL,
                   PRIMARY KEY(install, epoch)) WITHOUT ROWID
"""
LAST = b"\xff" * 16
"""The greatest id."""
_EVENTS_A_CHUNK, _INSTALLS_A_CHUNK = 5_000, 1_000
_DAY = 86_400
_COUNTS = msgspec.msgpack.Decoder(dict[int, int])
_DROPS = msgspec.msgpack.Decoder(dict[str, int])


def blob(identifier: str) -> bytes:
    """A UUID's 16 bytes."""
    return bytes.fromhex(identifier.replace("-", ""))


def text(identifier: bytes) -> str:
    """A UUID as it is written."""
    return str(uuid.UUID(bytes=identifier))


class Transaction:
    """The jobs of one commit. Durations are gathered and written once an install and day, by :meth:`flush`."""

    def __init__(self, con: sqlite3.Connection) -> None:
        self.con = con
        self.erased = False
        """Whether something was deleted that must not stay readable in the log."""
        self._seen: dict[bytes, int] = {}
        self._durations: dict[tuple[bytes, int], dict[int, int]] = {}
        self._today: dict[bytes, int] = {}  # installs whose median must be computed again
        self._medians: dict[bytes, float | None] = {}

    def append(self, records: Iterable[Record], drops: Drops | None) -> list[bool]:
        """Insert what is new; see :meth:`Store.append <cmdorc_telemetry_server.store.Store.append>`."""
        flags = []
        for record in records:
            install = blob(record.install)
            row = (blob(record.event_id), record.received, install, record.spec, record.event, record.body)
            fresh = self.con.execute("INSERT OR IGNORE INTO event VALUES (?,?,?,?,?,?)", row).rowcount == 1
            flags.append(fresh)
            if fresh:
                self._seen[install] = record.received
                if record.duration_ms is not None:
                    counts = self._durations.setdefault((install, record.day), {})
                    counts[record.duration_ms] = counts.get(record.duration_ms, 0) + 1
                    self._today[install] = record.received // _DAY
        if drops is not None and records:
            self._keep_drops(drops, max(record.received for record in records))
        return flags

    def _keep_drops(self, drops: Drops, now: int) -> None:
        key = (blob(drops.install), drops.epoch)
        row = self.con.execute("SELECT counts FROM drops WHERE install=? AND epoch=?", key).fetchone()
        # Requests may overtake each other, but what was lost only grows.
        if row is None or sum(_DROPS.decode(row[0]).values()) < sum(drops.counts.values()):
            counts = msgspec.msgpack.encode(drops.counts)
            self.con.execute("INSERT OR REPLACE INTO drops VALUES (?,?,?,?)", (*key, now, counts))

    def delete_events(self, after: bytes, condition: str, values: Sequence[Any]) -> tuple[int, bytes]:
        """Delete those of the next events after ``after`` that meet ``condition``: how many, and how far it came."""
        row = self.con.execute(
            "SELECT id FROM event WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (after, _EVENTS_A_CHUNK - 1)
        ).fetchone()
        end = row[0] if row else LAST
        done = self.con.execute(f"DELETE FROM event WHERE id > ? AND id <= ? AND {condition}", (after, end, *values))
        return done.rowcount, end

    def roll(self, after: bytes, now: int) -> bytes | None:
        """Drop the durations that left the window, of the next installs after ``after``; None at the end."""
        rows = self.con.execute(
            "SELECT install FROM install WHERE install > ? ORDER BY install LIMIT ?", (after, _INSTALLS_A_CHUNK)
        ).fetchall()
        if not rows:
            return None
        where = "FROM duration WHERE install > ? AND install <= ? AND day <= ?"
        scope = (after, rows[-1][0], now // _DAY - WINDOW_DAYS)
        for (install,) in self.con.execute(f"SELECT DISTINCT install {where}", scope).fetchall():
            self._today[install] = now // _DAY
        self.con.execute(f"DELETE {where}", scope)
        end: bytes = rows[-1][0]
        return end

    def forget_unseen(self, since: int) -> None:
        """Forget the installs and drops of which nothing came since a moment (seconds since the epoch)."""
        rows = self.con.execute("SELECT install FROM install WHERE seen < ?", (since,)).fetchall()
        self.forget([install for (install,) in rows if install not in self._seen])
        self.con.execute("DELETE FROM drops WHERE seen < ?", (since,))

    def forget(self, installs: Sequence[bytes]) -> None:
        """Delete all that is kept of installs but their events."""
        for table in ("duration", "drops", "install"):
            self.con.executemany(f"DELETE FROM {table} WHERE install=?", [(install,) for install in installs])
        self._medians.update(dict.fromkeys(installs))
        self.erased = True

    def flush(self) -> dict[bytes, float | None]:
        """Write what was gathered. Returns the medians that changed, None for those that are gone."""
        for install, seen in self._seen.items():
            self.con.execute(
                "INSERT INTO install(install, seen) VALUES (?,?)"
                " ON CONFLICT DO UPDATE SET seen=max(seen, excluded.seen)",
                (install, seen),
            )
        for (install, day), new in self._durations.items():
            row = self.con.execute("SELECT counts FROM duration WHERE install=? AND day=?", (install, day)).fetchone()
            counts = _COUNTS.decode(row[0]) if row else {}
            merge(counts, new)
            packed = msgspec.msgpack.encode(compact(counts))
            self.con.execute("INSERT OR REPLACE INTO duration VALUES (?,?,?)", (install, day, packed))
        for install, today in self._today.items():
            window: dict[int, int] = {}
            for (packed,) in self.con.execute(
                "SELECT counts FROM duration WHERE install=? AND day > ?", (install, today - WINDOW_DAYS)
            ):
                merge(window, _COUNTS.decode(packed))
            self._medians[install] = median(window)
            self.con.execute("UPDATE install SET median=? WHERE install=?", (self._medians[install], install))
        return self._medians
