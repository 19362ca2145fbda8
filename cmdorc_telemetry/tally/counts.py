"""Counts on disk: what all senders of one destination, one after the other, have counted.

One SQLite file. The numbers and the ids of the events that are in them are written in one transaction, and that is on
the disk before the events are acknowledged: an event whose acknowledgement was lost comes again, and is known. First
a draft is made, which writes nothing, then it is committed; who does that holds the lock all the while, for what is
made of the counts must never go back to older ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from .. import clock, files
from ..errors import RetryLater, StorageError, newer
from ..spec.instruments import Family
from . import ids
from .room import Room
from .tally import Label, Sample, Tally

log = logging.getLogger("cmdorc_telemetry")

KEPT_IDS = 100_000
"""How many ids are remembered at least: a sender that was stopped and goes on later may come with some that are old."""
SCHEMA_VERSION = 1
LOCK_SECONDS = 5.0
"""How long another process may hold the lock before the batch is put off."""
_LOCK_PAUSE = 0.01
_TIDY_EVERY = KEPT_IDS // 4
_BUSY_SECONDS = 5.0
_TABLES = (
    "TABLE family(name TEXT PRIMARY KEY, kind TEXT NOT NULL, help TEXT NOT NULL, unit TEXT NOT NULL, "
    "edges TEXT NOT NULL) WITHOUT ROWID",
    "TABLE sample(source TEXT, metric TEXT, labels TEXT, part TEXT, value REAL NOT NULL, at REAL NOT NULL, "
    "PRIMARY KEY(source, metric, labels, part)) WITHOUT ROWID",
    "TABLE label(name TEXT, value TEXT, seen REAL NOT NULL, PRIMARY KEY(name, value)) WITHOUT ROWID",
    "TABLE counted(id BLOB PRIMARY KEY, number INTEGER NOT NULL, marks INTEGER NOT NULL) WITHOUT ROWID",
    "TABLE note(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)
_ADD = "INSERT INTO sample VALUES(?,?,?,?,?,0) ON CONFLICT DO UPDATE SET value = value + excluded.value"
_SET = """INSERT INTO sample VALUES(?,?,?,?,?,min(?,?)) ON CONFLICT DO UPDATE SET value = excluded.value,
    at = excluded.at WHERE at > ? OR excluded.at >= at"""
"""What was later than now was told while the clock was wrong: it stands in nobody's way."""
_COUNTED = "counted"
"""The note of how many events are."""


class Identified(Protocol):
    """What can be known again."""

    @property
    def event_id(self) -> str:
        """Empty for what cannot."""


R = TypeVar("R")
T = TypeVar("T", bound=Tally[Any])


class Contents(NamedTuple):
    """All that was counted, of one moment."""

    families: Mapping[str, Family] = {}
    samples: Mapping[Sample, float] = {}


class Draft(Struct, Generic[T], frozen=True, kw_only=True):
    """What counting some events would make of the counts; nothing is written yet."""

    base: int
    """How many events were counted before."""
    fresh: tuple[bool, ...]
    """Which of the events are counted with this; the others were before, or stand here twice."""
    ids: tuple[bytes, ...]
    """Of those that are, as they are kept."""
    tally: T
    """What they add."""
    room: Room
    """The values of labels."""
    marks: Mapping[str, int]
    """Event id → the marks that it has, of those that were counted before."""
    notes: Mapping[str, int]
    """What else is remembered."""
    now: float
    """When it was made, in seconds since the epoch."""
    anew: int = 0
    """The mark of which some that were counted and lack it do not come again: then all numbers begin anew."""

    @property
    def number(self) -> int:
        """How many events are counted with these."""
        return self.base + len(self.ids)


class Counts:
    """The file. Opened for each use: another process may have deleted it meanwhile."""

    def __init__(self, path: Path, most_values: int = 100) -> None:
        """``most_values``: how many values a label has that are not declared; others become ``other``."""
        self.path = path
        self._most_values = most_values

    @property
    def lock_path(self) -> Path:
        """The file that is locked by whoever counts."""
        return self.path.with_name(f"{self.path.name}.lock")

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """While no other process counts. Raises RetryLater where that takes too long, and for what goes wrong then."""
        try:
            files.own_dir(self.path.parent)
            lock = files.FileLock(self.lock_path)
            deadline = clock.monotonic() + LOCK_SECONDS
            while not lock.acquire(wait=False):
                if clock.monotonic() > deadline:
                    raise RetryLater(f"{self.path}: another process holds its lock for more than {LOCK_SECONDS:g} s")
                await asyncio.sleep(_LOCK_PAUSE)
            try:
                yield
            finally:
                lock.release()
        except StorageError as fault:
            raise RetryLater(str(fault)) from None
        except (OSError, sqlite3.Error) as fault:
            raise RetryLater(f"{self.path}: {getattr(fault, 'strerror', None) or fault}") from None

    def draft(self, events: Sequence[Identified], tally: Callable[[Label], T], now: float) -> Draft[T]:
        """What counting ``events`` adds: those of them that were not counted. Raises sqlite3.Error, StorageError.

        ``tally`` makes a tally that asks for room for the values of labels.
        """
        return self.reading(lambda db: self.drafted(db, events, tally, now))

    def commit(self, draft: Draft[T], notes: Mapping[str, int] | None = None) -> None:
        """Count what a draft counts, all of it or nothing. ``notes`` are remembered with it.

        Raises RetryLater where the counts are not any more as it was made from; sqlite3.Error, OSError, StorageError.
        """
        files.own_dir(self.path.parent)
        try:
            self._commit(draft, notes or {})
        except sqlite3.DatabaseError as fault:
            if not _is_damage(fault):
                raise
            kept = files.set_database_aside(self.path)
            log.warning("%s cannot be read (%s) and was moved to %s: counters begin anew", self.path, fault, kept)
            if draft.base:  # what was known when it was made is known no more
                raise RetryLater(f"{self.path} cannot be read: {fault}") from None
            self._commit(draft, notes or {})

    def mark(self, event_ids: Iterable[str], mark: int) -> None:
        """Remember something of events that are counted. Raises sqlite3.Error."""
        with closing(_connect(self.path, "rw")) as db:
            db.execute("BEGIN IMMEDIATE")
            rows = [(mark, ids.key(event_id)) for event_id in event_ids]
            db.executemany("UPDATE counted SET marks = marks | ? WHERE id = ?", rows)
            db.execute("COMMIT")

    def read(self) -> Contents:
        """What was counted; nothing where there is no file. Raises sqlite3.Error."""
        if not self.path.exists():
            return Contents()
        with closing(_connect(self.path, "rw")) as db:  # a crash may have left something to be rolled back
            db.execute("BEGIN")
            rows = db.execute("SELECT source, metric, labels, part, value FROM sample ORDER BY 1, 2, 3, 4")
            return Contents(families(db), {Sample(*row[:4]): row[4] for row in rows})

    def delete(self) -> None:
        """Delete the file, and what SQLite may have beside it. Raises OSError."""
        for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
            path.unlink(missing_ok=True)

    # -- for those that are made of this ------------------------------------------------------------------------------

    def reading(self, read: Callable[[sqlite3.Connection], R]) -> R:
        """What ``read`` finds in the file at one moment; in an empty one where there is none, or none that is sound.

        Raises sqlite3.Error; StorageError for a file of a later version.
        """
        try:
            if self.path.is_file():
                with closing(_connect(self.path, "rw")) as db:  # a crash may have left something to be rolled back
                    db.execute("BEGIN")
                    if _version(db, self.path) == SCHEMA_VERSION:
                        return read(db)
        except sqlite3.DatabaseError as fault:  # moved aside as soon as something is to be written
            if not _is_damage(fault):
                raise
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            _make(db)
            return read(db)

    def drafted(
        self,
        db: sqlite3.Connection,
        events: Sequence[Identified],
        tally: Callable[[Label], T],
        now: float,
        told: int = 0,
    ) -> Draft[T]:
        """The draft of a file that is open.

        ``told``: the mark of events of which somebody heard. Where some that were counted lack it and are not among
        ``events``, nobody may hear of them any more, and numbers that they are in begin anew.
        """
        room = Room(db, self._most_values, now)
        made, keys = tally(room.place), [ids.key(event.event_id) for event in events]
        known = ids.known(db, keys)
        lost = bool(told) and ids.lacking(db, told) > sum(not marks & told for marks in known.values())
        fresh: dict[bytes, None] = {}
        news = []
        for event, key in zip(events, keys, strict=True):
            news.append((key not in known or (lost and not known[key] & told)) and key not in fresh)
            if news[-1]:
                fresh[key] = None
                made.count(event)
        return Draft(
            base=_counted(db),
            fresh=tuple(news),
            ids=tuple(fresh),
            tally=made,
            room=room,
            marks={event.event_id: known[key] for event, key in zip(events, keys, strict=True) if key in known},
            notes=dict(db.execute("SELECT name, value FROM note").fetchall()),
            now=now,
            anew=told if lost else 0,
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _commit(self, draft: Draft[T], notes: Mapping[str, int]) -> None:
        with closing(self._opened()) as db:
            db.execute("BEGIN IMMEDIATE")
            if _counted(db) != draft.base:
                _check(db)  # where it could not be read, the draft is made of nothing
                raise RetryLater(f"{self.path}: another process has counted meanwhile")
            if draft.anew:
                db.execute("DELETE FROM sample")
                db.execute("DELETE FROM counted WHERE NOT marks & ?", (draft.anew,))
            draft.room.write(db)
            _declare(db, draft.tally)
            number = draft.number
            db.executemany(_ADD, [(*sample, value) for sample, value in draft.tally.added.items()])
            now = draft.now
            db.executemany(_SET, [(*sample, *value, now, now) for sample, value in draft.tally.latest.items()])
            db.executemany("INSERT OR REPLACE INTO note VALUES(?,?)", [*notes.items(), (_COUNTED, number)])
            marks = {ids.key(event_id): marks for event_id, marks in draft.marks.items()}
            rows = [(key, draft.base + place, marks.get(key, 0)) for place, key in enumerate(draft.ids, 1)]
            db.executemany("INSERT INTO counted VALUES(?,?,?)", rows)
            if number // _TIDY_EVERY > draft.base // _TIDY_EVERY:
                db.execute("DELETE FROM counted WHERE number <= ?", (number - KEPT_IDS,))
            db.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection:
        files.make_way(self.path)
        db = _connect(self.path, "rwc")
        try:
            self.path.chmod(0o600)
            if _version(db, self.path) < SCHEMA_VERSION:
                db.execute("BEGIN IMMEDIATE")
                _make(db)
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db


def families(db: sqlite3.Connection) -> dict[str, Family]:
    """What is kept of each instrument."""
    rows = db.execute("SELECT name, kind, help, unit, edges FROM family")
    return {name: Family(name, kind, told, unit, tuple(json.loads(edges))) for name, kind, told, unit, edges in rows}


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    try:  # what is acknowledged must outlive a power cut: events do not come again
        db.execute("PRAGMA synchronous=EXTRA")
    except BaseException:  # it looks into the file for that
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise newer(path, version, SCHEMA_VERSION)
    return version


def _make(db: sqlite3.Connection) -> None:
    for each in _TABLES:
        db.execute(f"CREATE {each}")
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _check(db: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError for a broken file."""
    if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(found)


def _is_damage(fault: sqlite3.DatabaseError) -> bool:
    """Whether the file is no database, or a broken one. What is derived from this is of a full disk and the like."""
    return type(fault) is sqlite3.DatabaseError


def _declare(db: sqlite3.Connection, tally: Tally[Any]) -> None:
    """Keep what is to be said of instruments. One that is measured otherwise than before begins anew."""
    before = families(db)
    for name, family in tally.families.items():
        if name in tally.alone or before.get(name, family).measure != family.measure:
            db.execute("DELETE FROM sample WHERE metric = ?", (name,))
        if before.get(name) != family:
            db.execute("INSERT OR REPLACE INTO family VALUES(?,?,?,?,?)", (*family[:4], json.dumps(family.edges)))


def _counted(db: sqlite3.Connection) -> int:
    row: tuple[int] | None = db.execute("SELECT value FROM note WHERE name = ?", (_COUNTED,)).fetchone()
    return row[0] if row else 0
