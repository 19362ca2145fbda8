"""Which values this machine has shown often enough: counts that survive restarts, in bounded space.

A value is common from the event on that is the k-th to have it. What is counted are events, by their ids: one that
passes twice counts once. Values and ids are kept as keyed hashes. It is never thought that a value is common that is
not: where there is no room, what was not seen for longest is forgotten, and counts anew.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cmdorc_telemetry import clock, files
from cmdorc_telemetry.errors import StorageError

from .operations import Secret, digest

log = logging.getLogger("cmdorc_telemetry")

MOST_VALUES = 1000
"""Of one property of one event."""
_MOST_KNOWN = 10_000
_ID = 8
"""Bytes that an event's id takes."""
_WAIT_SECONDS = 0.2
"""How long another process may hold the file: the gate waits a second for an event, and then gives up for good."""
_SCHEMA = """CREATE TABLE IF NOT EXISTS seen(
    property BLOB NOT NULL, value BLOB NOT NULL, install BLOB NOT NULL, last INTEGER NOT NULL, events BLOB NOT NULL,
    PRIMARY KEY(property, value)) WITHOUT ROWID"""


class Seen(NamedTuple):
    """A value that an event has, and how many events it takes until it is common."""

    place: str
    """What its values are counted as."""
    value: str | float
    k: int


class Rarity:
    """Counts in a database in ``folder``."""

    def __init__(self, folder: Path, most_values: int = MOST_VALUES) -> None:
        self._folder, self._path, self._most = folder, folder / "seen.db", most_values
        self._common: set[tuple[bytes, int]] = set()
        """Values that are known to be common, by a hash and how often that takes: no need to look again."""
        self._warned = False

    def common(self, seen: Iterable[Seen], event_id: str, secret: Secret) -> set[Seen]:
        """Count the values of an event. Those of them that ``k`` events had, this one included.

        All of them are counted, or none is. Where the counts cannot be read or written, what is not known to be common
        is not.
        """
        hashed = {each: digest(secret, each.place, each.value) for each in seen}
        found = {each for each, value in hashed.items() if (value, each.k) in self._common}
        if len(found) == len(hashed):
            return found
        one = digest(secret, "event_id", event_id)[:_ID]
        try:
            with self._open() as db:
                new = {each for each in hashed.keys() - found if self._counted(db, each, hashed[each], one, secret)}
        except (OSError, sqlite3.Error, StorageError) as fault:
            self._warn(fault)
            return found
        if len(self._common) >= _MOST_KNOWN:
            self._common.clear()
        self._common |= {(hashed[each], each.k) for each in new}
        return found | new

    def _counted(self, db: sqlite3.Connection, seen: Seen, value: bytes, one: bytes, secret: Secret) -> bool:
        """Whether enough events had ``value``, after the event ``one`` is counted."""
        place, install, value = secret(seen.place.encode())[:16], secret(b"install")[:8], value[:16]
        row = db.execute("SELECT events FROM seen WHERE property=? AND value=?", (place, value)).fetchone()
        events: bytes = row[0] if row else b""
        count = len(events) // _ID
        if count >= seen.k or one in {events[at : at + _ID] for at in range(0, len(events), _ID)}:
            return count >= seen.k
        if row is None:
            db.execute("DELETE FROM seen WHERE install<>?", (install,))  # of an id that was given up
            self._make_room(db, place)
        db.execute("REPLACE INTO seen VALUES(?,?,?,?,?)", (place, value, install, int(clock.wall()), events + one))
        return count + 1 >= seen.k

    def _make_room(self, db: sqlite3.Connection, place: bytes) -> None:
        """For one more value of a property. Those seen in the fewest events go first, the longest unseen of them."""
        db.execute(
            "DELETE FROM seen WHERE property=?1 AND value IN (SELECT value FROM seen WHERE property=?1 "
            "ORDER BY length(events) DESC, last DESC LIMIT -1 OFFSET ?2)", (place, self._most - 1),
        )  # fmt: skip

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database, for one transaction. Opened anew each time: a forked child may be the next to ask.

        Nothing is brought to the disk at once: what a power failure takes is counted anew.
        """
        if not self._path.exists():
            files.private_dir(self._folder)
            os.close(files.open_private(self._path, os.O_RDWR | os.O_CREAT))
        db = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous=OFF")
            db.execute("BEGIN IMMEDIATE")
            db.execute(_SCHEMA)
            yield db
            db.execute("COMMIT")
        except sqlite3.DatabaseError as fault:
            if not isinstance(fault, sqlite3.OperationalError):
                files.set_database_aside(self._path)  # it is damaged; the next time a new one is begun
            raise
        finally:
            db.close()

    def _warn(self, fault: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s cannot be used (%s): values whose rule says 'rare' are not shared", self._path, fault)
