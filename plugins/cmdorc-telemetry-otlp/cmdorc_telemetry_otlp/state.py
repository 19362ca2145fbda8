"""What one destination counted and was acknowledged, on disk: of all its senders, one after the other.

One SQLite file. The numbers and the ids of the events that are in them are written in one transaction: an event that
comes again, because its acknowledgement was lost or because one of its signals could not be sent, is known, and so is
which signals of it arrived. Whoever counts holds a lock of his own, which is not known here.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from cmdorc_telemetry import files
from cmdorc_telemetry.errors import RetryLater

from .database import SCHEMA_VERSION, check, connect, make, unreadable
from .fields import Facts
from .metrics import Catalogue, Family
from .tally import OTHER, Sample, Tally, written

log = logging.getLogger("cmdorc_telemetry")

KEPT_IDS = 100_000
"""How many ids are remembered at least: a sender that was stopped and goes on later may come with some that are old."""
FORGET_DAYS = 30
"""An attribute's value that was not seen for so long makes room where there is none: its series end."""
_TIDY_EVERY = KEPT_IDS // 4
_ASKED = 500
"""Parameters of one statement: SQLite has had a bound of 999."""
_SECOND, _STEP = 10**9, 10**6
"""In nanoseconds: what event times are told in, and how far apart two tellings are at least."""
_ADD = """INSERT INTO sample VALUES(?,?,?,?,?,0,?) ON CONFLICT DO UPDATE SET value = value + excluded.value,
    changed = excluded.changed"""
_SET = """INSERT INTO sample VALUES(?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at,
    changed = excluded.changed WHERE excluded.at >= at"""


class Draft(NamedTuple):
    """What counting some events would make of the state; nothing is written yet."""

    base: int
    """How many events were counted before."""
    begun: int
    """Nanoseconds since the epoch: before the first was."""
    told: int
    """Likewise: as of when the series are told. Later than whenever they were told before."""
    arrived: Mapping[str, int]
    """Event id → the signals of it that have arrived, of those that were counted before."""
    fresh: tuple[bytes, ...]
    """The ids that are new, as they are kept."""
    tally: Tally
    """What they add."""
    now: float
    labels: Mapping[tuple[str, str], float]
    """(attribute, value) → when it was last seen; ``now`` for those of these events."""
    forgotten: tuple[tuple[str, str], ...]
    """Those that make room for others."""
    families: Mapping[str, Family]
    samples: Mapping[Sample, float]
    """All series that changed since they were last sent, with what is added now."""


class State:
    """The file. Opened for each use: another process may have deleted it meanwhile."""

    def __init__(self, path: Path, most_values: int = 100) -> None:
        """``most_values``: how many values an attribute has that are not declared; others become ``other``."""
        self.path = path
        self._most_values = most_values

    def draft(self, events: Sequence[Facts], catalogue: Catalogue | None, now: float) -> Draft:
        """What is to be counted and sent for ``events``. Writes nothing. ``catalogue``: None where nothing is counted.

        Raises sqlite3.Error, StorageError.
        """
        with suppress(FileNotFoundError), closing(self._readable()) as db:
            db.execute("BEGIN")
            return self._draft(db, events, catalogue, now)
        # There is nothing yet, or nothing that can be read: that is moved aside when something is to be written.
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            first = min((facts.seconds for facts in events if facts.seconds), default=1)
            make(db, (first - 1) * _SECOND)
            return self._draft(db, events, catalogue, now)

    def commit(self, draft: Draft) -> None:
        """Count what a draft counts. Raises RetryLater where the state is not any more as it was drafted from.

        Also sqlite3.Error, OSError, StorageError.
        """
        files.own_dir(self.path.parent)
        try:
            db = self._opened(draft.begun)
        except sqlite3.DatabaseError as fault:
            if not unreadable(fault):
                raise
            kept = files.set_database_aside(self.path)
            log.warning("%s cannot be read (%s) and was moved to %s: counters begin anew", self.path, fault, kept)
            db = self._opened(draft.begun)
        with closing(db):
            db.execute("BEGIN IMMEDIATE")
            if _counted(db) != draft.base:
                raise RetryLater(f"{self.path}: another process has counted meanwhile")
            number = draft.base + len(draft.fresh)
            db.execute("UPDATE times SET told = ?", (draft.told,))
            for name, value in draft.forgotten:
                # Inside of a string the quotes of this would be escaped: it is the attribute.
                db.execute("DELETE FROM sample WHERE instr(attributes, ?)", (written({name: value})[1:-1],))
                db.execute("DELETE FROM label WHERE name = ? AND value = ?", (name, value))
            for family in draft.tally.families.values():
                _declare(db, family)
            db.executemany(_ADD, [(*sample, value, number) for sample, value in draft.tally.added.items()])
            db.executemany(_SET, [(*sample, *value, number) for sample, value in draft.tally.latest.items()])
            db.executemany("INSERT OR REPLACE INTO label VALUES(?,?,?)",
                           [(*key, seen) for key, seen in draft.labels.items() if seen == draft.now])  # fmt: skip
            db.executemany("INSERT INTO counted VALUES(?,?,0)",
                           [(id_, draft.base + place) for place, id_ in enumerate(draft.fresh, 1)])  # fmt: skip
            if number // _TIDY_EVERY > draft.base // _TIDY_EVERY:
                db.execute("DELETE FROM counted WHERE number <= ?", (number - KEPT_IDS,))
            db.execute("COMMIT")

    def arrived(self, event_ids: Iterable[str], signal: int) -> None:
        """A signal of these events has arrived. Raises sqlite3.Error."""
        with closing(connect(self.path, "rw")) as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("UPDATE counted SET arrived = arrived | ? WHERE id = ?",
                           [(signal, _id(event_id)) for event_id in event_ids])  # fmt: skip
            db.execute("COMMIT")

    def metrics_arrived(self, draft: Draft) -> None:
        """The series of a draft have arrived. Raises sqlite3.Error."""
        with closing(connect(self.path, "rw")) as db:
            db.execute("UPDATE sample SET changed = 0 WHERE changed > 0 AND changed <= ?",
                       (draft.base + len(draft.fresh),))  # fmt: skip

    # -- inside -------------------------------------------------------------------------------------------------------

    def _draft(self, db: sqlite3.Connection, events: Sequence[Facts], catalogue: Catalogue | None, now: float) -> Draft:
        known = _known(db, [_id(facts.event_id) for facts in events])
        labels = _Labels(db, self._most_values, now)
        tally, fresh = Tally(catalogue or Catalogue(()), labels.place), dict[bytes, None]()
        for facts in events:
            id_ = _id(facts.event_id)
            if id_ not in known and id_ not in fresh:
                fresh[id_] = None
                if catalogue is not None:
                    tally.count(facts)
        families = {name: Family(name, kind, unit, text, tuple(json.loads(edges))) for name, kind, unit, text, edges
                    in db.execute("SELECT name, kind, unit, help, edges FROM family")}  # fmt: skip
        begun, told = db.execute("SELECT begun, told FROM times").fetchone()
        return Draft(
            base=_counted(db),
            begun=begun,
            told=max(told + _STEP, *(facts.seconds * _SECOND for facts in events)),
            arrived={facts.event_id: known[id_] for facts in events if (id_ := _id(facts.event_id)) in known},
            fresh=tuple(fresh),
            tally=tally,
            now=now,
            labels=labels.seen,
            forgotten=tuple(labels.forgotten),
            families={**families, **tally.families},
            samples=_merged(db, tally, families),
        )

    def _readable(self) -> sqlite3.Connection:
        """Raises FileNotFoundError where there is nothing, or nothing complete, or nothing that can be read."""
        if not self.path.exists():
            raise FileNotFoundError
        try:
            db = connect(self.path, "rw")  # a crash may have left something to be rolled back
            try:
                if check(db, self.path) < SCHEMA_VERSION:
                    raise FileNotFoundError
            except BaseException:
                db.close()
                raise
        except sqlite3.DatabaseError as fault:
            if not unreadable(fault):
                raise
            raise FileNotFoundError from None
        return db

    def _opened(self, begun: int) -> sqlite3.Connection:
        files.make_way(self.path)
        db = connect(self.path, "rwc")
        try:
            self.path.chmod(0o600)
            if check(db, self.path) < SCHEMA_VERSION:
                make(db, begun)
        except BaseException:
            db.close()
            raise
        return db


class _Labels:
    """Which values attributes have, and room for how many."""

    def __init__(self, db: sqlite3.Connection, most: int, now: float) -> None:
        self._most, self._now = most, now
        self.seen: dict[tuple[str, str], float] = {
            (name, value): seen for name, value, seen in db.execute("SELECT name, value, seen FROM label")
        }
        self.forgotten: list[tuple[str, str]] = []

    def place(self, name: str, value: str) -> str:
        """``value``, or ``other`` where there is no room for it."""
        if value == OTHER or ((name, value) not in self.seen and not self._room(name)):
            return OTHER
        self.seen[name, value] = self._now
        return value

    def _room(self, name: str) -> bool:
        """Whether there is room for one more, maybe because one was not seen for long."""
        known = [key for key in self.seen if key[0] == name]
        if len(known) < self._most:
            return True
        oldest = min(known, key=lambda key: self.seen[key])
        if self.seen[oldest] > self._now - FORGET_DAYS * 86400:
            return False
        del self.seen[oldest]
        self.forgotten.append(oldest)
        return True


def _merged(db: sqlite3.Connection, tally: Tally, families: Mapping[str, Family]) -> dict[Sample, float]:
    """The whole series of all that changed, or changes now."""
    changed = {*db.execute("SELECT DISTINCT service, metric, attributes FROM sample WHERE changed > 0"),
               *(sample[:3] for sample in (*tally.added, *tally.latest))}  # fmt: skip
    anew = {name for name, new in tally.families.items() if _measured(families.get(name, new)) != _measured(new)}
    found: dict[Sample, float] = {}
    for key in changed:
        if key[1] not in anew:
            where = "service = ? AND metric = ? AND attributes = ?"
            for part, value in db.execute(f"SELECT part, value FROM sample WHERE {where}", key):
                found[Sample(key[0], key[1], key[2], part)] = value
    for sample, value in tally.added.items():
        found[sample] = found.get(sample, 0.0) + value
    found.update({sample: value for sample, (value, _) in tally.latest.items()})
    return found


def _measured(family: Family) -> tuple[object, ...]:
    return family.kind, family.unit, tuple(family.edges)


def _declare(db: sqlite3.Connection, family: Family) -> None:
    """Keep what is to be said of a family. One that is measured otherwise than before begins anew."""
    row = (family.name, family.kind, family.unit, family.help, json.dumps(family.edges))
    before = db.execute("SELECT name, kind, unit, help, edges FROM family WHERE name = ?", row[:1]).fetchone()
    if before is not None and (before[1], before[2], before[4]) != (row[1], row[2], row[4]):
        db.execute("DELETE FROM sample WHERE metric = ?", row[:1])
    if before != row:
        db.execute("INSERT OR REPLACE INTO family VALUES(?,?,?,?,?)", row)


def _counted(db: sqlite3.Connection) -> int:
    number: int = db.execute("SELECT ifnull(max(number), 0) FROM counted").fetchone()[0]
    return number


def _known(db: sqlite3.Connection, ids: Sequence[bytes]) -> dict[bytes, int]:
    """Those of ``ids`` that are counted → which signals of them arrived."""
    known: dict[bytes, int] = {}
    for start in range(0, len(ids), _ASKED):
        some = ids[start : start + _ASKED]
        known.update(
            db.execute(f"SELECT id, arrived FROM counted WHERE id IN ({','.join('?' * len(some))})", some).fetchall()
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
