"""The events of the spool, its destinations and their ledgers.

A row is one event; each destination has a cursor, and rows of its own only for exceptions (retry later, set
aside). Every count moves in the same transaction as what it counts, so that at each moment and for each
destination ``recorded = acknowledged + pending + dropped``. Knows nothing of reporters or consent.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import StorageError
from ..types import DeadLetter, EventResult, Gated, Lease, Leased, Ledger, Row, View
from .file import SpoolFile

_DAY = 86_400.0
_ROW = "seq, at, spec, event, version, generation, source, private, shared"
_DUE = "NOT (next_try>? AND next_try<=?)"
"""Of now and now plus the longest pause: a later moment is from before the clock was set back."""


class Spool(SpoolFile):
    """An open spool. Not shared between threads. Raises StorageError where it cannot be opened."""

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
                old = self._views(db).get(view.name)
                if old == view:  # to look for changes would scan the backlog, while nobody else can write
                    continue
                if old is not None and old.identity == view.identity:
                    self._change(db, old, view)
                elif old is not None:
                    self._abandon(db, view.name, "destination-changed")
                kinds = None if view.kinds is None else json.dumps(sorted(view.kinds))
                db.execute(
                    "INSERT INTO destination(name, audience, identity, kinds, cursor) VALUES(?,?,?,?,?) "
                    "ON CONFLICT DO UPDATE SET audience=excluded.audience, identity=excluded.identity, "
                    "kinds=excluded.kinds, cursor=CASE WHEN removed THEN excluded.cursor ELSE cursor END, removed=0",
                    (view.name, view.audience, view.identity, kinds, end),
                )
            known = {view.name for view in views}
            rows = db.execute("SELECT name, owner FROM destination WHERE NOT removed").fetchall()
            for name, owner in rows:
                if name in known or (owner is not None and owner_lives is not None and owner_lives(owner)):
                    continue
                reason = (
                    "reporter-gone" if owner else "withdrawn-consent" if name in withdrawn else "destination-removed"
                )
                self._abandon(db, name, reason)
            self._trim(db)

    def adopt(self, view: View, owner: str) -> None:
        """Add the destination of a reporter injected by code; ``owner`` is how others see whether it lives."""
        with self._write() as db:
            db.execute(
                "INSERT INTO destination(name, audience, identity, source, cursor, owner) VALUES(?,?,?,?,?,?)",
                (view.name, view.audience, view.identity, view.source, self._end(db), owner),
            )

    def abandon(self, name: str, reason: str) -> None:
        """Drop what waits for a destination, for ``reason``, and remove it; harmless where that was done."""
        with self._write() as db:
            if name in self._views(db):
                self._abandon(db, name, reason)
                self._trim(db)

    def _end(self, db: sqlite3.Connection) -> int:
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name='event'").fetchone()
        return int(row[0]) if row else 0

    def _abandon(self, db: sqlite3.Connection, name: str, reason: str) -> None:
        lost = self._pending(db, self._views(db)[name]) + self._held(db, name)
        self._drop(db, name, reason, lost)
        db.execute("DELETE FROM held WHERE destination=?", (name,))
        db.execute("UPDATE destination SET removed=1 WHERE name=?", (name,))

    def _change(self, db: sqlite3.Connection, old: View, new: View) -> None:
        """It takes other events now: those no longer are dropped, those from now on are recorded."""
        gained = lost = 0
        for spec, event, has, source, count in self._waiting(db, new.name):
            before, after = old.wants(spec, event, has, source), new.wants(spec, event, has, source)
            gained += count * (after and not before)
            lost += count * (before and not after)
        held = db.execute("SELECT spec, event, shared IS NOT NULL, source, seq FROM held JOIN event USING(seq) "
                          "WHERE destination=?", (new.name,)).fetchall()  # fmt: skip
        for *kind, seq in held:
            if not new.wants(*kind):
                lost += 1
                db.execute("DELETE FROM held WHERE destination=? AND seq=?", (new.name, seq))
        db.execute("UPDATE destination SET recorded=recorded+? WHERE name=?", (gained, new.name))
        self._drop(db, new.name, "destination-changed", lost)

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
        rows = self._ask("SELECT off, done FROM segment WHERE name=?", (segment,))
        return 0 if not rows else None if rows[0][1] is not None else int(rows[0][0])

    def take_in(
        self,
        segment: str,
        gated: Gated,
        *,
        before: int,
        after: int,
        drops: Mapping[str, int],
        damaged: int = 0,
        source: str | None = None,
        still_there: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Write the rows of a segment between two offsets, once. False: somebody else did, or the file is gone.

        ``drops`` are the cumulative losses that the segment's header tells of; ``source`` is the journal it is of.
        """
        with self._write() as db:
            row = db.execute("SELECT off, done, drops FROM segment WHERE name=?", (segment,)).fetchone()
            known, done, told = row or (0, None, "{}")
            if done is not None or known != before or not still_there():
                return False
            db.executemany(
                "INSERT INTO event(at, spec, event, version, generation, source, private, shared) "
                "VALUES(?,?,?,?,?,?,?,?)",
                [(r.at, r.spec, r.event, r.version, r.generation, r.source, r.private, r.shared) for r in gated.rows],
            )
            seen = msgspec.json.decode(told, type=_Told)
            lost = Counter(drops) - Counter(seen.drops)
            # What the owner counted as it failed to write lies there damaged too: the same loss.
            seen.damaged += damaged
            known_corrupt = seen.corrupt
            seen.corrupt = max(seen.corrupt, seen.damaged - drops.get("storage-failed", 0))
            lost["corrupt"] += seen.corrupt - known_corrupt + gated.unreadable
            seen.drops = dict(drops)
            for name, view in self._views(db).items():
                if view.source not in (None, source):
                    continue
                wanted = sum(view.wants(r.spec, r.event, r.shared is not None, r.source) for r in gated.rows)
                db.execute("UPDATE destination SET recorded=recorded+? WHERE name=?", (wanted + lost.total(), name))
                for reason, count in lost.items():
                    self._drop(db, name, reason, count)
            for reason, count in gated.withheld.items():
                db.execute("INSERT INTO withheld VALUES(?,?) ON CONFLICT DO UPDATE SET n=n+excluded.n", (reason, count))
            db.execute(
                "INSERT INTO segment(name, off, drops) VALUES(?,?,?) "
                "ON CONFLICT DO UPDATE SET off=excluded.off, drops=excluded.drops",
                (segment, after, msgspec.json.encode(seen).decode()),
            )
        return True

    def finish(self, segment: str, now: float) -> None:
        """Mark a segment whose file is gone; forget those finished more than a day ago."""
        with self._write() as db:
            db.execute("UPDATE segment SET done=? WHERE name=?", (now, segment))
            db.execute("DELETE FROM segment WHERE done < ?", (now - _DAY,))

    # -- delivery -------------------------------------------------------------------------------------------------

    def lease(self, name: str, now: float, *, count: int | None = None, size: int | None = None) -> Lease | None:
        """The next events for a destination, those due for a retry first; None for nothing to send.

        At most ``count`` events and ``size`` bytes: as many as the bounds say, where they are not given.

        Begins with a small write: where that is refused, an acknowledgement would be too, and nothing may be sent.
        """
        if not self._anything(name, now):
            return None
        count = self.bounds.batch_events if count is None else count
        size = self.bounds.batch_kib << 10 if size is None else size
        with self._write() as db:
            db.execute("UPDATE destination SET mark=? WHERE name=?", (now, name))
            view = self._views(db).get(name)
            if view is None:
                return None
            cursor = db.execute("SELECT cursor FROM destination WHERE name=?", (name,)).fetchone()[0]
            due = db.execute(
                f"SELECT {_ROW}, tries FROM held JOIN event USING(seq) "
                f"WHERE destination=? AND state='retry' AND {_DUE} ORDER BY seq LIMIT ?",
                (name, now, now + self.bounds.pause_seconds, count),
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
        found = self._ask(
            "SELECT EXISTS(SELECT 1 FROM event WHERE seq > (SELECT cursor FROM destination WHERE name=?)) "
            f"OR EXISTS(SELECT 1 FROM held WHERE destination=? AND state='retry' AND {_DUE})",
            (name, name, now, now + self.bounds.pause_seconds),
        )
        return bool(found[0][0])

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
        try:
            self._settle(lease, outcomes, now, pause, answer)
        except StorageError:  # a full disk, mostly: unless this can be written, all of it would be sent again for ever
            if not self._give_up_reserve():
                raise
            self._settle(lease, outcomes, now, pause, answer)

    def _settle(
        self, lease: Lease, outcomes: Mapping[int, EventResult], now: float, pause: Callable[[int], float],
        answer: Mapping[str, Any] | None,
    ) -> None:  # fmt: skip
        name = lease.destination
        with self._write() as db:
            view = self._views(db).get(name)
            if view is None:
                return  # removed meanwhile; what waited for it was dropped
            acked = 0
            leased = {item.seq: item for item in lease.items}
            for seq in self._unsettled(db, view, lease):
                item = leased.get(seq)
                tries = item.tries if item else 0
                outcome = outcomes.get(seq) or EventResult("", "retry")
                reason = outcome.reason or ""
                if outcome.status == "retry" or (outcome.status == "rejected" and reason.startswith("set-aside")):
                    state = "retry" if outcome.status == "retry" else "dead"
                    until = now + pause(tries) if item else now
                    db.execute("INSERT OR REPLACE INTO held VALUES(?,?,?,?,?,?)",
                               (name, seq, state, tries + 1, until, reason))  # fmt: skip
                    continue
                if outcome.status == "rejected":
                    self._drop(db, name, reason if reason in _OWN_REASONS else "rejected-by-server", 1)
                else:
                    acked += 1
                db.execute("DELETE FROM held WHERE destination=? AND seq=?", (name, seq))
            db.execute(
                "UPDATE destination SET acked=acked+?, cursor=max(cursor, ?), failures=0, next_try=0, last_error='', "
                "last_report=CASE WHEN ? THEN ? ELSE last_report END, answer=coalesce(?, answer) WHERE name=?",
                (acked, lease.upto, acked, now, json.dumps(dict(answer)) if answer else None, name),
            )
            self._trim(db)

    def _unsettled(self, db: sqlite3.Connection, view: View, lease: Lease) -> list[int]:
        """Of what a lease covers, all that still waits: neither settled, nor dropped, nor expired meanwhile.

        Events that the destination takes only since the lease was given are among it.
        """
        new = db.execute(
            "SELECT seq, spec, event, shared IS NOT NULL, source FROM event "
            "WHERE seq > (SELECT cursor FROM destination WHERE name=?) AND seq <= ? ORDER BY seq",
            (view.name, lease.upto),
        )
        tried = [
            item.seq for item in lease.items if item.tries
            and db.execute("SELECT 1 FROM held WHERE destination=? AND seq=?", (view.name, item.seq)).fetchone()
        ]  # fmt: skip
        return tried + [seq for seq, *kind in new if view.wants(*kind)]

    def postpone(self, name: str, until: float, error: str) -> None:
        """A whole batch failed: leave the destination alone until then. Survives the process."""
        with self._write() as db:
            db.execute("UPDATE destination SET failures=failures+1, next_try=?, last_error=? WHERE name=?",
                       (until, error[:500], name))  # fmt: skip

    def state(self, name: str) -> tuple[int, float]:
        """Failures of a destination in a row, and the moment before which it is left alone."""
        rows = self._ask("SELECT failures, next_try FROM destination WHERE name=?", (name,))
        return (int(rows[0][0]), float(rows[0][1])) if rows else (0, 0.0)

    def mark(self, name: str) -> float:
        """When somebody last began to send to a destination; 0 for never."""
        rows = self._ask("SELECT mark FROM destination WHERE name=?", (name,))
        return float(rows[0][0]) if rows else 0.0

    def drops(self, name: str) -> dict[str, int]:
        """What a destination lost so far, by reason."""
        return dict(self._ask("SELECT reason, n FROM dropped WHERE destination=?", (name,)))

    def retry_at(self, name: str) -> float | None:
        """When the next event that was put off is due; None for none."""
        rows = self._ask("SELECT min(next_try) FROM held WHERE destination=? AND state='retry'", (name,))
        return None if rows[0][0] is None else float(rows[0][0])

    def backlog(self, name: str, most: int) -> tuple[int, int, float]:
        """How many events (of ``most`` at most), how many bytes and since when wait behind a destination's cursor.

        Those that are not for it count too. (0, 0, 0) for none.
        """
        rows = self._ask(
            "SELECT count(*), coalesce(sum(length(private)), 0), coalesce(min(at), 0) FROM (SELECT at, private "
            "FROM event WHERE seq > (SELECT cursor FROM destination WHERE name=?) ORDER BY seq LIMIT ?)",
            (name, most),
        )
        count, size, oldest = rows[0]
        return int(count), int(size), float(oldest)

    def hurry(self) -> None:
        """Forget every pause, but not what failed: somebody asked for everything to be sent now."""
        with self._write() as db:
            db.execute("UPDATE destination SET next_try=0")
            db.execute("UPDATE held SET next_try=0 WHERE state='retry'")

    # -- dead letters ---------------------------------------------------------------------------------------------

    def dead_letters(self, destination: str | None = None) -> list[DeadLetter]:
        """What was set aside, for one destination or for all, in the order of its events."""
        found = self._ask(
            "SELECT destination, seq, at, spec, event, tries, reason, private FROM held JOIN event USING(seq) "
            "WHERE state='dead' AND destination=coalesce(?, destination) ORDER BY seq, destination",
            (destination,),
        )
        return [
            DeadLetter(destination=name, seq=seq, at=at, spec=spec, event=event, tries=tries, reason=reason,
                       event_id=_event_id(private))
            for name, seq, at, spec, event, tries, reason, private in found
        ]  # fmt: skip

    def resend(self, now: float, destination: str | None = None, seqs: Collection[int] | None = None) -> int:
        """Send dead letters again, at once: those of ``seqs``, or all. How many there are."""
        with self._write() as db:
            dead = self._dead(db, destination, seqs)
            db.executemany(
                "UPDATE held SET state='retry', next_try=? WHERE destination=? AND seq=?",
                [(now, *each) for each in dead],
            )
        return len(dead)

    def discard(self, destination: str | None = None, seqs: Collection[int] | None = None) -> int:
        """Drop dead letters as ``discarded``: those of ``seqs``, or all. How many there were."""
        with self._write() as db:
            dead = self._dead(db, destination, seqs)
            db.executemany("DELETE FROM held WHERE destination=? AND seq=?", dead)
            for name, count in Counter(name for name, _ in dead).items():
                self._drop(db, name, "discarded", count)
            self._trim(db)
        return len(dead)

    def _dead(
        self, db: sqlite3.Connection, destination: str | None, seqs: Collection[int] | None
    ) -> list[tuple[str, int]]:  # fmt: skip
        found = db.execute("SELECT destination, seq FROM held WHERE state='dead' AND destination=coalesce(?, destination)",
                           (destination,)).fetchall()  # fmt: skip
        return [(name, seq) for name, seq in found if seqs is None or seq in seqs]

    # -- bounds ---------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Drop what is older than the bounds allow (``expired``) and what is more (``spool-full``)."""
        with self._write() as db:
            self._expel(db, "at < ?", int(now - self.bounds.keep_days * _DAY), "expired")
            extra = db.execute("SELECT seq FROM event ORDER BY seq DESC LIMIT 1 OFFSET ?",
                               (self.bounds.spool_events,)).fetchone()  # fmt: skip
            if extra is not None:
                self._expel(db, "seq <= ?", extra[0], "spool-full")
            # The reporter of a process leaves a line in the ledger: for a day.
            db.execute("UPDATE destination SET mark=? WHERE removed AND owner IS NOT NULL AND mark=0", (now,))
            db.execute("DELETE FROM destination WHERE removed AND owner IS NOT NULL AND mark<?", (now - _DAY,))
            db.execute("DELETE FROM dropped WHERE destination NOT IN (SELECT name FROM destination)")
            self._trim(db)

    def _expel(self, db: sqlite3.Connection, which: str, value: int, reason: str) -> None:
        for name, view in self._views(db).items():
            held = db.execute(
                f"DELETE FROM held WHERE destination=? AND seq IN (SELECT seq FROM event WHERE {which})", (name, value)
            ).rowcount
            self._drop(db, name, reason, self._pending(db, view, which, value) + held)
        db.execute(f"DELETE FROM event WHERE {which}", (value,))

    def _trim(self, db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM event WHERE seq <= coalesce((SELECT min(cursor) FROM destination WHERE NOT removed), 0) "
            "AND seq NOT IN (SELECT seq FROM held)"
        )

    # -- what others may know ---------------------------------------------------------------------------------------

    def _waiting(
        self, db: sqlite3.Connection, name: str, which: str = "seq > ?", value: int = 0
    ) -> list[tuple[str, str, bool, str, int]]:
        """Spec, event, whether there is a shared body, source and number of the events behind a cursor."""
        return db.execute(
            "SELECT spec, event, shared IS NOT NULL, source, count(*) FROM event WHERE seq > "
            f"(SELECT cursor FROM destination WHERE name=?) AND {which} GROUP BY 1,2,3,4",
            (name, value),
        ).fetchall()

    def _pending(self, db: sqlite3.Connection, view: View, which: str = "seq > ?", value: int = 0) -> int:
        return sum(
            count for spec, event, has, source, count in self._waiting(db, view.name, which, value)
            if view.wants(spec, event, has, source)
        )  # fmt: skip

    def _held(self, db: sqlite3.Connection, name: str, state: str | None = None) -> int:
        row = db.execute("SELECT count(*) FROM held WHERE destination=? AND state=coalesce(?, state)", (name, state))
        return int(row.fetchone()[0])

    def ledger(self) -> dict[str, Ledger]:
        """The bookkeeping of every destination there ever was, as of one moment."""
        db = self._db
        with self._transaction("DEFERRED"):
            views = self._views(db)
            found = db.execute("SELECT name, recorded, acked, failures, next_try, last_report, last_error, answer, removed "
                               "FROM destination ORDER BY name").fetchall()  # fmt: skip
            return {
                name: Ledger(
                    name=name, recorded=recorded, acknowledged=acked, removed=bool(removed), next_try=next_try,
                    failures=failures,
                    pending=self._pending(db, views[name]) + self._held(db, name) if not removed else 0,
                    set_aside=self._held(db, name, "dead"), last_report=last_report, last_error=last_error,
                    answer=json.loads(answer), dropped=self.drops(name),
                )
                for name, recorded, acked, failures, next_try, last_report, last_error, answer, removed in found
            }  # fmt: skip

    def withheld(self) -> dict[str, int]:
        """Shared bodies that the gate held back, by reason."""
        return dict(self._ask("SELECT reason, n FROM withheld"))

    def oldest(self, among: Collection[str] | None = None) -> float | None:
        """The moment of the oldest event that a destination (of those ``among``) waits for; None where none does.

        What was set aside does not wait.
        """
        rows = self._ask(
            "SELECT name, (SELECT at FROM event WHERE seq > cursor ORDER BY seq LIMIT 1), (SELECT min(at) FROM held "
            "JOIN event USING(seq) WHERE destination=name AND state='retry') FROM destination WHERE NOT removed"
        )
        moments = [at for name, *each in rows if among is None or name in among for at in each if at is not None]
        return float(min(moments)) if moments else None

    def newest(self, event: str | None = None, *, shared: bool = False) -> Row | None:
        """The newest event that is still stored: of that name, if one is given; with a shared body, if asked for."""
        rows = self._ask(
            f"SELECT {_ROW} FROM event WHERE event=coalesce(?, event) AND (shared IS NOT NULL OR NOT ?) "
            "ORDER BY seq DESC LIMIT 1",
            (event, shared),
        )
        return _row(rows[0]) if rows else None

    def size(self) -> tuple[int, int]:
        """How many events are stored, and how many bytes of the file are in use."""
        ((count,),) = self._ask("SELECT count(*) FROM event")
        pages, free, each = (
            self._ask(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int(count), int((pages - free) * each)

    def row(self, seq: int) -> Row | None:
        """The event of that number; None where it is not stored any more."""
        rows = self._ask(f"SELECT {_ROW} FROM event WHERE seq=?", (seq,))
        return _row(rows[0]) if rows else None


class _Told(msgspec.Struct):
    """What was known of a segment's losses: by its header, by damaged records, and counted as ``corrupt`` of those."""

    drops: dict[str, int] = {}
    damaged: int = 0
    corrupt: int = 0


class _Id(msgspec.Struct):
    event_id: str = ""


def _event_id(private: bytes) -> str:
    try:
        return msgspec.json.decode(private, type=_Id).event_id
    except msgspec.MsgspecError:
        return ""


_OWN_REASONS = ("withdrawn-consent", "over-size")


def _row(raw: Sequence[Any]) -> Row:
    _, at, spec, event, version, generation, source, private, shared = raw[:9]
    return Row(spec=spec, event=event, version=version, at=at, generation=generation, source=source,
               private=private, shared=shared)  # fmt: skip
