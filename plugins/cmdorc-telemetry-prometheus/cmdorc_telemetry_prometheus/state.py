"""The metrics of one destination, on disk: what all its senders, one after the other, have counted.

One SQLite file. The numbers and the ids of the events that are in them are written in one transaction, and that is on
the disk before the events are acknowledged: an event whose acknowledgement was lost comes again, and is known. Whoever
writes holds a lock of his own, which is not known here.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from cmdorc_telemetry import files
from cmdorc_telemetry.errors import newer
from cmdorc_telemetry.types import BatchEvent

from .metrics import DROPPED, INFO, Catalogue, Family
from .tally import OTHER, Sample, Tally, written

log = logging.getLogger("cmdorc_telemetry")

KEPT_IDS = 100_000
"""How many ids are remembered at least: a sender that was stopped and goes on later may come with some that are old."""
FORGET_DAYS = 30
"""A label's value that was not seen for so long makes room where there is none: its series end."""
SCHEMA_VERSION = 1
_TIDY_EVERY = KEPT_IDS // 4
_ASKED = 500
"""Parameters of one statement: SQLite has had a bound of 999."""
_BUSY_SECONDS = 5.0
_TABLES = (
    "family(name TEXT PRIMARY KEY, kind TEXT NOT NULL, help TEXT NOT NULL, edges TEXT NOT NULL) WITHOUT ROWID",
    "sample(metric TEXT, labels TEXT, part TEXT, value REAL NOT NULL, at REAL NOT NULL, "
    "PRIMARY KEY(metric, labels, part)) WITHOUT ROWID",
    "label(name TEXT, value TEXT, seen REAL NOT NULL, PRIMARY KEY(name, value)) WITHOUT ROWID",
    "counted(id BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
)
_ADD = """INSERT INTO sample VALUES(?,?,?,?,0) ON CONFLICT DO UPDATE SET value = value + excluded.value"""
_SET = """INSERT INTO sample VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at
    WHERE excluded.at >= at"""


class Contents(NamedTuple):
    """All that was counted, of one moment."""

    families: Mapping[str, Family] = {}
    samples: Mapping[Sample, float] = {}


class State:
    """The file. Opened for each use: another process may have deleted it meanwhile."""

    def __init__(self, path: Path, most_values: int = 100) -> None:
        """``most_values``: how many values a label has that are not declared; others become ``other``."""
        self.path = path
        self._most_values = most_values

    def take(
        self, events: Sequence[BatchEvent], catalogue: Catalogue, drops: Mapping[str, int], now: float
    ) -> list[bool]:
        """Count those of ``events`` that are not counted yet: which these are. All of them or, where it raises, none.

        ``drops``: what was lost, by reason, cumulative. Raises sqlite3.Error, OSError, StorageError.
        """
        files.own_dir(self.path.parent)
        try:
            return self._take(events, catalogue, drops, now)
        except sqlite3.DatabaseError as fault:
            if type(fault) is not sqlite3.DatabaseError:  # those are of a full disk, or of a mistake of ours
                raise
            kept = files.set_database_aside(self.path)
            log.warning("%s cannot be read (%s) and was moved to %s: counters begin anew", self.path, fault, kept)
            return self._take(events, catalogue, drops, now)

    def read(self) -> Contents:
        """What was counted; nothing where there is no file. Raises sqlite3.Error."""
        if not self.path.exists():
            return Contents()
        with closing(_connect(self.path, "rw")) as db:  # a crash may have left something to be rolled back
            db.execute("BEGIN")
            told = db.execute("SELECT name, kind, help, edges FROM family")
            families = {name: Family(name, kind, text, tuple(json.loads(edges))) for name, kind, text, edges in told}
            rows = db.execute("SELECT metric, labels, part, value FROM sample ORDER BY 1, 2, 3")
            return Contents(families, {Sample(metric, labels, part): value
                                       for metric, labels, part, value in rows})  # fmt: skip

    def delete(self) -> None:
        """Delete the file, and what SQLite may have beside it. Raises OSError."""
        for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
            path.unlink(missing_ok=True)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _take(
        self, events: Sequence[BatchEvent], catalogue: Catalogue, drops: Mapping[str, int], now: float
    ) -> list[bool]:
        with closing(self._opened()) as db:
            db.execute("BEGIN IMMEDIATE")
            fresh = self._fresh(db, events)
            if any(fresh):
                labels = _Labels(db, self._most_values, now)
                tally = Tally(catalogue, labels.place)
                for event, new in zip(events, fresh, strict=True):
                    if new:
                        tally.count(event)
                labels.write()
                self._write(db, tally, drops)
            db.execute("COMMIT")
        return fresh

    def _opened(self) -> sqlite3.Connection:
        files.make_way(self.path)
        db = _connect(self.path, "rwc")
        try:
            self.path.chmod(0o600)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise newer(self.path, version, SCHEMA_VERSION)
            if version < SCHEMA_VERSION:
                db.execute("BEGIN IMMEDIATE")
                for table in _TABLES:
                    db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    @staticmethod
    def _fresh(db: sqlite3.Connection, events: Sequence[BatchEvent]) -> list[bool]:
        """Which of ``events`` were not counted; from now on they are. One without an id cannot be known again."""
        (before,) = db.execute("SELECT ifnull(max(number), 0) FROM counted").fetchone() if events else (0,)
        number, fresh, ids = before, [], [_id(event.event_id) for event in events]
        known = _known(db, ids)
        rows = []
        for event, id_ in zip(events, ids, strict=True):
            new = not event.event_id or id_ not in known
            if new and event.event_id:
                number += 1
                known.add(id_)
                rows.append((id_, number))
            fresh.append(new)
        db.executemany("INSERT INTO counted VALUES(?,?)", rows)
        if number // _TIDY_EVERY > before // _TIDY_EVERY:
            db.execute("DELETE FROM counted WHERE number <= ?", (number - KEPT_IDS,))
        return fresh

    @staticmethod
    def _write(db: sqlite3.Connection, tally: Tally, drops: Mapping[str, int]) -> None:
        for family in (*tally.families.values(), INFO, *((DROPPED,) if drops else ())):
            _declare(db, family)
        db.executemany(_ADD, [(*sample, value) for sample, value in tally.added.items()])
        db.executemany(_SET, [(*sample, value, at) for sample, (value, at) in tally.latest.items()])
        db.execute("DELETE FROM sample WHERE metric = ?", (INFO.name,))
        lost = [(Sample(DROPPED.name, written({"reason": reason})), count) for reason, count in drops.items()]
        for sample, value in [(Sample(INFO.name, tally.info), 1), *lost]:
            db.execute(_SET, (*sample, value, 0))


class _Labels:
    """Which values labels have, and room for how many."""

    def __init__(self, db: sqlite3.Connection, most: int, now: float) -> None:
        self._db, self._most, self._now = db, most, now
        self._known: dict[str, dict[str, float]] = {}
        for name, value, seen in db.execute("SELECT name, value, seen FROM label"):
            self._known.setdefault(name, {})[value] = seen

    def place(self, name: str, value: str) -> str:
        """``value``, or ``other`` where there is no room for it."""
        known = self._known.setdefault(name, {})
        if value != OTHER and value not in known and len(known) >= self._most and not self._forget(name, known):
            return OTHER
        if value != OTHER:
            known[value] = self._now
        return value

    def _forget(self, name: str, known: dict[str, float]) -> bool:
        """Make room for one, if there is a value that was not seen for long."""
        oldest = min(known, key=lambda value: known[value])
        if known[oldest] > self._now - FORGET_DAYS * 86400:
            return False
        del known[oldest]
        # Inside of a string the quotes of this would be escaped: it is the label.
        self._db.execute("DELETE FROM sample WHERE instr(labels, ?)", (written({name: oldest})[1:-1],))
        self._db.execute("DELETE FROM label WHERE name = ? AND value = ?", (name, oldest))
        return True

    def write(self) -> None:
        """Keep what was seen."""
        rows = [(name, value, seen) for name, known in self._known.items() for value, seen in known.items()]
        self._db.executemany("INSERT OR REPLACE INTO label VALUES(?,?,?)", [row for row in rows if row[2] == self._now])


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    db.execute("PRAGMA synchronous=EXTRA")  # what is acknowledged must outlive a power cut: events do not come again
    return db


def _declare(db: sqlite3.Connection, family: Family) -> None:
    """Keep what is to be said of a family. One that is measured otherwise than before begins anew."""
    row = (family.name, family.kind, json.dumps(family.edges), family.help)
    before = db.execute("SELECT name, kind, edges, help FROM family WHERE name = ?", row[:1]).fetchone()
    if before is not None and before[:3] != row[:3]:
        db.execute("DELETE FROM sample WHERE metric = ?", row[:1])
    if before != row:
        db.execute("INSERT OR REPLACE INTO family(name, kind, edges, help) VALUES(?,?,?,?)", row)


def _known(db: sqlite3.Connection, ids: Sequence[bytes]) -> set[bytes]:
    """Those of ``ids`` that are counted."""
    known: set[bytes] = set()
    for start in range(0, len(ids), _ASKED):
        some = ids[start : start + _ASKED]
        known.update(
            id_ for (id_,) in db.execute(f"SELECT id FROM counted WHERE id IN ({','.join('?' * len(some))})", some)
        )
    return known


def _id(event_id: str) -> bytes:
    """An id in 16 bytes: those of a UUID that begin with a time lie beside each other."""
    digits = event_id.replace("-", "")
    try:
        short = bytes.fromhex(digits)
    except ValueError:
        short = b""
    return short if len(short) == 16 else blake2b(event_id.encode(), digest_size=16).digest()
