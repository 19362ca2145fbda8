"""The durable queue that all processes of one user share: SQLite, touched only by telemetry threads and commands.

A row is one event; each destination has a cursor, and rows of its own only for exceptions (retry later, set
aside). Every count moves in the same transaction as what it counts, so that at each moment and for each
destination ``recorded = acknowledged + pending + dropped``. Knows nothing of reporters or consent.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import files
from .errors import StorageError
from .types import EventResult, Gated, Lease, Leased, Ledger, Row, View

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segment(name TEXT PRIMARY KEY, off INTEGER NOT NULL, drops TEXT NOT NULL DEFAULT '{}',
    done REAL) WITHOUT ROWID;
CREATE TABLE event(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, spec TEXT NOT NULL, event TEXT NOT NULL,
    version INTEGER NOT NULL, generation TEXT NOT NULL, source TEXT NOT NULL, private BLOB NOT NULL, shared BLOB);
CREATE TABLE destination(name TEXT PRIMARY KEY, audience TEXT NOT NULL, identity TEXT NOT NULL, kinds TEXT, source TEXT,
    cursor INTEGER NOT NULL, recorded INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0,
    mark REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
    last_report REAL NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '', answer TEXT NOT NULL DEFAULT '{}',
    owner TEXT, removed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE held(destination TEXT, seq INTEGER, state TEXT NOT NULL, tries INTEGER NOT NULL, next_try REAL NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY(destination, seq)) WITHOUT ROWID;
CREATE TABLE dropped(destination TEXT, reason TEXT, n INTEGER NOT NULL, PRIMARY KEY(destination, reason)) WITHOUT ROWID;
CREATE TABLE withheld(reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""
_DAY = 86_400.0
_ROW = "seq, at, spec, event, version, generation, source, private, shared"


class Spool:
    """An open spool. Not shared between threads. Raises StorageError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moved_aside: Path | None = None
        """Where an unreadable file was put, if there was one."""
        files.private_dir(path.parent)
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as fault:
            if isinstance(fault, sqlite3.OperationalError):
                raise StorageError(f"{path} cannot be opened: {fault}") from fault
            self.moved_aside = path.with_name(f"{path.name}.corrupt-{os.urandom(4).hex()}")
            os.replace(path, self.moved_aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._db = self._open()
        self.epoch = str(self._db.execute("SELECT value FROM meta WHERE key='epoch'").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        os.close(files.open_private(self.path, os.O_RDWR | os.O_CREAT))
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StorageError(f"{self.path} was made by a newer version (schema {version}): upgrade this one")
            if version == 0:
                db.execute("BEGIN IMMEDIATE")
                if not db.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
                    for statement in _SCHEMA.split(";\n"):
                        db.execute(statement)
                    db.execute("INSERT INTO meta VALUES('epoch', ?)", (os.urandom(8).hex(),))
                    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the connection; everything committed stays."""
        self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises StorageError where the disk refuses it; then nothing of it happened."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as fault:
            raise StorageError(f"{self.path} cannot be written: {fault}") from fault

    # -- destinations ---------------------------------------------------------------------------------------------

    def register(
        self, views: Sequence[View], *, withdrawn: Sequence[str] = (), owner_lives: Callable[[str], bool] | None = None
    ) -> None:
        """Make ``views`` the destinations there are. A new one starts at the end; one that is gone loses its rows.

        ``withdrawn`` are those gone because consent is: their rows are dropped for that reason. Destinations of
        reporters injected by code are left alone while ``owner_lives`` says so.
        """
        with self._write() as db:
            end = self._end(db)
            for view in views:
                old = db.execute("SELECT kinds, removed, identity, cursor FROM destination WHERE name=?",
                                 (view.name,)).fetchone()  # fmt: skip
                kinds = None if view.kinds is None else json.dumps(sorted(view.kinds))
                if old is None:
                    db.execute("INSERT INTO destination(name, audience, identity, kinds, cursor) VALUES(?,?,?,?,?)",
                               (view.name, view.audience, view.identity, kinds, end))  # fmt: skip
                    continue
                if not old[1] and old[2] != view.identity:
                    self._abandon(db, view.name, "destination-changed")
                elif not old[1] and old[0] != kinds:
                    self._settle_kinds(db, view)
                fresh = old[1] or old[2] != view.identity
                db.execute("UPDATE destination SET audience=?, identity=?, kinds=?, removed=0, cursor=? WHERE name=?",
                           (view.audience, view.identity, kinds, end if fresh else old[3], view.name))  # fmt: skip
            known = {view.name for view in views}
            rows = db.execute("SELECT name, owner FROM destination WHERE NOT removed").fetchall()
            for name, owner in rows:
                if name in known or (owner is not None and owner_lives is not None and owner_lives(owner)):
                    continue
                reason = (
                    "reporter-gone" if owner else "withdrawn-consent" if name in withdrawn else "destination-removed"
                )
                self._abandon(db, name, reason)
                db.execute("UPDATE destination SET removed=1 WHERE name=?", (name,))
            self._trim(db)

    def adopt(self, view: View, owner: str) -> None:
        """Add the destination of a reporter injected by code; ``owner`` is how others see whether it lives."""
        with self._write() as db:
            db.execute(
                "INSERT INTO destination(name, audience, identity, source, cursor, owner) VALUES(?,?,?,?,?,?)",
                (view.name, view.audience, view.identity, view.source, self._end(db), owner),
            )

    def abandon(self, name: str, reason: str) -> None:
        """Drop what waits for a destination, for ``reason``, and remove it."""
        with self._write() as db:
            self._abandon(db, name, reason)
            db.execute("UPDATE destination SET removed=1 WHERE name=?", (name,))
            self._trim(db)

    def _end(self, db: sqlite3.Connection) -> int:
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name='event'").fetchone()
        return int(row[0]) if row else 0

    def _abandon(self, db: sqlite3.Connection, name: str, reason: str) -> None:
        lost = self._pending(db, name, self._views(db)[name]) + self._held(db, name)
        self._drop(db, name, reason, lost)
        db.execute("DELETE FROM held WHERE destination=?", (name,))
        db.execute("UPDATE destination SET cursor=? WHERE name=?", (self._end(db), name))

    def _settle_kinds(self, db: sqlite3.Connection, view: View) -> None:
        """The list of events changed: rows it no longer takes are dropped, rows it takes now are recorded."""
        before = self._pending(db, view.name, self._views(db)[view.name])
        after = self._pending(db, view.name, view)
        if after > before:
            db.execute("UPDATE destination SET recorded=recorded+? WHERE name=?", (after - before, view.name))
        self._drop(db, view.name, "destination-changed", max(before - after, 0))

    def _views(self, db: sqlite3.Connection) -> dict[str, View]:
        found = db.execute("SELECT name, audience, identity, kinds, source FROM destination WHERE NOT removed")
        return {
            name: View(name=name, audience=audience, identity=identity, source=source,
                       kinds=None if kinds is None else frozenset((spec, event) for spec, event in json.loads(kinds)))
            for name, audience, identity, kinds, source in found
        }  # fmt: skip

    def _drop(self, db: sqlite3.Connection, name: str, reason: str, count: int) -> None:
        if count:
            db.execute(
                "INSERT INTO dropped VALUES(?,?,?) ON CONFLICT DO UPDATE SET n=n+excluded.n", (name, reason, count)
            )

    # -- import ---------------------------------------------------------------------------------------------------

    def offset(self, segment: str) -> int | None:
        """How far a segment was read; 0 for one never seen, None for one that is finished."""
        row = self._db.execute("SELECT off, done FROM segment WHERE name=?", (segment,)).fetchone()
        return 0 if row is None else None if row[1] is not None else int(row[0])

    def take_in(
        self,
        segment: str,
        gated: Gated,
        *,
        before: int,
        after: int,
        drops: Mapping[str, int],
        damaged: int = 0,
        still_there: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Write the rows of a segment between two offsets, once. False: somebody else did, or the file is gone.

        ``drops`` are the cumulative losses that the segment's header tells of.
        """
        with self._write() as db:
            row = db.execute("SELECT off, done, drops FROM segment WHERE name=?", (segment,)).fetchone()
            known, done, told = row or (0, None, "{}")
            if done is not None or known != before or not still_there():
                return False
            db.executemany(
                "INSERT INTO event(at, spec, event, version, generation, source, private, shared) VALUES(?,?,?,?,?,?,?,?)",
                [(r.at, r.spec, r.event, r.version, r.generation, r.source, r.private, r.shared) for r in gated.rows],
            )
            seen = json.loads(told)
            lost = Counter({reason: count - seen.get(reason, 0) for reason, count in drops.items()})
            # What the owner counted as it failed to write lies there damaged too: the same loss.
            lost["corrupt"] += max(damaged - lost["storage-failed"], 0) + gated.unreadable
            for name, view in self._views(db).items():
                wanted = sum(view.wants(r.spec, r.event, r.shared is not None, r.source) for r in gated.rows)
                total = wanted + sum(lost.values())
                if total:
                    db.execute("UPDATE destination SET recorded=recorded+? WHERE name=?", (total, name))
                for reason, count in lost.items():
                    self._drop(db, name, reason, count)
            for reason, count in gated.withheld.items():
                db.execute("INSERT INTO withheld VALUES(?,?) ON CONFLICT DO UPDATE SET n=n+excluded.n", (reason, count))
            db.execute(
                "INSERT INTO segment(name, off, drops) VALUES(?,?,?) "
                "ON CONFLICT DO UPDATE SET off=excluded.off, drops=excluded.drops",
                (segment, after, json.dumps(dict(drops))),
            )
        return True

    def finish(self, segment: str, now: float) -> None:
        """Mark a segment whose file is gone; forget those finished more than a day ago."""
        with self._write() as db:
            db.execute("UPDATE segment SET done=? WHERE name=?", (now, segment))
            db.execute("DELETE FROM segment WHERE done < ?", (now - _DAY,))

    # -- delivery -------------------------------------------------------------------------------------------------

    def lease(self, name: str, now: float, *, count: int = 500, size: int = 1 << 20) -> Lease | None:
        """The next events for a destination, those due for a retry first; None for nothing to send.

        Begins with a small write: where that is refused, an acknowledgement would be too, and nothing may be sent.
        """
        if not self._anything(name, now):
            return None
        with self._write() as db:
            db.execute("UPDATE destination SET mark=? WHERE name=?", (now, name))
            view = self._views(db).get(name)
            if view is None:
                return None
            cursor = db.execute("SELECT cursor FROM destination WHERE name=?", (name,)).fetchone()[0]
            due = db.execute(
                f"SELECT {_ROW}, tries FROM held JOIN event USING(seq) "
                "WHERE destination=? AND state='retry' AND next_try<=? ORDER BY seq LIMIT ?",
                (name, now, count),
            ).fetchall()
            items = [Leased(row[0], _row(row), row[9]) for row in due]
            room, upto = size - sum(self._size(view, item.row) for item in items), cursor
            for raw in db.execute(f"SELECT {_ROW} FROM event WHERE seq>? ORDER BY seq", (cursor,)):
                row = _row(raw)
                if view.wants(row.spec, row.event, row.shared is not None, row.source):
                    room -= self._size(view, row)
                    if len(items) >= count or (room < 0 and items):
                        break
                    items.append(Leased(raw[0], row))
                upto = raw[0]
            if not items and upto > cursor:
                db.execute("UPDATE destination SET cursor=? WHERE name=?", (upto, name))
                self._trim(db)
        return Lease(name, tuple(items), upto) if items else None

    def _anything(self, name: str, now: float) -> bool:
        found = self._db.execute(
            "SELECT EXISTS(SELECT 1 FROM event WHERE seq > (SELECT cursor FROM destination WHERE name=?)) "
            "OR EXISTS(SELECT 1 FROM held WHERE destination=? AND state='retry' AND next_try<=?)",
            (name, name, now),
        )
        return bool(found.fetchone()[0])

    def _size(self, view: View, row: Row) -> int:
        return len(row.private if view.audience == "private" else row.shared or b"")

    def settle(
        self,
        lease: Lease,
        outcomes: Mapping[int, EventResult],
        now: float,
        *,
        pause: Callable[[int], float] = lambda tries: 0.0,
        answer: Mapping[str, Any] | None = None,
    ) -> None:
        """Enter what became of each leased event (by seq); one not named is retried after ``pause(tries)``.

        A rejected event is dropped as ``rejected-by-server``, unless its reason begins with ``set-aside``: then it
        is kept for somebody to look at. A status of ``retry`` keeps it.
        """
        with self._write() as db:
            acked = 0
            cursor = db.execute("SELECT cursor FROM destination WHERE name=?", (lease.destination,)).fetchone()[0]
            held = {seq for (seq,) in db.execute("SELECT seq FROM held WHERE destination=?", (lease.destination,))}
            for item in lease.items:
                if item.seq not in held if item.tries else item.seq <= cursor:
                    continue  # settled or expired meanwhile by somebody else, and counted there
                outcome = outcomes.get(item.seq) or EventResult("", "retry")
                reason = outcome.reason or ""
                key = (lease.destination, item.seq)
                if outcome.status in ("accepted", "duplicate"):
                    acked += 1
                elif outcome.status == "retry" or reason.startswith("set-aside"):
                    state = "retry" if outcome.status == "retry" else "dead"
                    db.execute("INSERT OR REPLACE INTO held VALUES(?,?,?,?,?,?)",
                               (*key, state, item.tries + 1, now + pause(item.tries), reason))  # fmt: skip
                    continue
                else:
                    self._drop(db, lease.destination, reason if reason in _OWN_REASONS else "rejected-by-server", 1)
                if item.tries:
                    db.execute("DELETE FROM held WHERE destination=? AND seq=?", key)
            db.execute(
                "UPDATE destination SET acked=acked+?, cursor=max(cursor, ?), failures=0, next_try=0, last_error='', "
                "last_report=CASE WHEN ? THEN ? ELSE last_report END, answer=coalesce(?, answer) WHERE name=?",
                (acked, lease.upto, acked, now, json.dumps(dict(answer)) if answer else None, lease.destination),
            )
            self._trim(db)

    def postpone(self, name: str, until: float, error: str) -> None:
        """A whole batch failed: leave the destination alone until then. Survives the process."""
        with self._write() as db:
            db.execute("UPDATE destination SET failures=failures+1, next_try=?, last_error=? WHERE name=?",
                       (until, error[:500], name))  # fmt: skip

    def state(self, name: str) -> tuple[int, float]:
        """Failures of a destination in a row, and the moment before which it is left alone."""
        row = self._db.execute("SELECT failures, next_try FROM destination WHERE name=?", (name,)).fetchone()
        return (int(row[0]), float(row[1])) if row else (0, 0.0)

    def retry_at(self, name: str) -> float | None:
        """When the next event that was put off is due; None for none."""
        row = self._db.execute(
            "SELECT min(next_try) FROM held WHERE destination=? AND state='retry'", (name,)
        ).fetchone()
        return None if row[0] is None else float(row[0])

    def hurry(self) -> None:
        """Forget every pause: somebody asked for everything to be sent now."""
        with self._write() as db:
            db.execute("UPDATE destination SET next_try=0, failures=0")
            db.execute("UPDATE held SET next_try=0 WHERE state='retry'")

    # -- bounds ---------------------------------------------------------------------------------------------------

    def expire(self, now: float, *, days: float = 30, rows: int = 200_000) -> None:
        """Drop what is older than ``days`` (``expired``) and what is more than ``rows`` (``spool-full``)."""
        with self._write() as db:
            old = db.execute("SELECT max(seq) FROM event WHERE at<?", (int(now - days * _DAY),)).fetchone()[0]
            self._expel(db, old, "expired")
            self._expel(db, self._end(db) - rows, "spool-full")
            self._trim(db)

    def _expel(self, db: sqlite3.Connection, upto: int | None, reason: str) -> None:
        if upto is None or upto <= 0:
            return
        for name, view in self._views(db).items():
            held = db.execute("DELETE FROM held WHERE destination=? AND seq<=?", (name, upto)).rowcount
            self._drop(db, name, reason, self._pending(db, name, view, upto) + held)
            db.execute("UPDATE destination SET cursor=max(cursor, ?) WHERE name=?", (upto, name))

    def _trim(self, db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM event WHERE seq <= coalesce((SELECT min(cursor) FROM destination WHERE NOT removed), 0) "
            "AND seq NOT IN (SELECT seq FROM held)"
        )

    # -- what others may know ---------------------------------------------------------------------------------------

    def _pending(self, db: sqlite3.Connection, name: str, view: View, upto: int | None = None) -> int:
        found = db.execute(
            "SELECT spec, event, shared IS NOT NULL, source, count(*) FROM event WHERE seq > "
            "(SELECT cursor FROM destination WHERE name=?) AND seq <= coalesce(?, seq) GROUP BY 1,2,3,4",
            (name, upto),
        )
        return sum(count for spec, event, has, source, count in found if view.wants(spec, event, bool(has), source))

    def _held(self, db: sqlite3.Connection, name: str, state: str | None = None) -> int:
        row = db.execute("SELECT count(*) FROM held WHERE destination=? AND state=coalesce(?, state)", (name, state))
        return int(row.fetchone()[0])

    def ledger(self) -> dict[str, Ledger]:
        """The bookkeeping of every destination there ever was, as of one moment."""
        db = self._db
        db.execute("BEGIN")
        try:
            views = self._views(db)
            found = db.execute("SELECT name, recorded, acked, next_try, last_report, last_error, answer, removed "
                               "FROM destination ORDER BY name").fetchall()  # fmt: skip
            return {
                name: Ledger(
                    name=name, recorded=recorded, acknowledged=acked, removed=bool(removed), next_try=next_try,
                    pending=self._pending(db, name, views[name]) + self._held(db, name) if not removed else 0,
                    set_aside=self._held(db, name, "dead"), last_report=last_report, last_error=last_error,
                    answer=json.loads(answer),
                    dropped=self.drops(name),
                )
                for name, recorded, acked, next_try, last_report, last_error, answer, removed in found
            }  # fmt: skip
        finally:
            db.execute("COMMIT")

    def drops(self, name: str) -> dict[str, int]:
        """What a destination lost, by reason."""
        return dict(self._db.execute("SELECT reason, n FROM dropped WHERE destination=?", (name,)).fetchall())

    def withheld(self) -> dict[str, int]:
        """Shared bodies that the gate held back, by reason."""
        return dict(self._db.execute("SELECT reason, n FROM withheld").fetchall())

    def oldest(self) -> float | None:
        """The moment of the oldest event that some destination still waits for; None where all is delivered."""
        row = self._db.execute("SELECT min(at) FROM event").fetchone()
        return None if row[0] is None else float(row[0])

    def newest(self, event: str | None = None) -> Row | None:
        """The newest event that is still stored; of that name, if one is given."""
        row = self._db.execute(f"SELECT {_ROW} FROM event WHERE event=coalesce(?, event) ORDER BY seq DESC LIMIT 1",
                               (event,)).fetchone()  # fmt: skip
        return _row(row) if row else None


_OWN_REASONS = ("withdrawn-consent", "over-size")


def _row(raw: Sequence[Any]) -> Row:
    _, at, spec, event, version, generation, source, private, shared = raw[:9]
    return Row(spec=spec, event=event, version=version, at=at, generation=generation, source=source,
               private=private, shared=shared)  # fmt: skip
