"""Leases: which events a destination gets next, and what became of those it got."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import StorageError
from ..types import DropReason, EventResult, Lease, Leased, View
from .destinations import Destinations

_UNNAMED = EventResult("", "retry")
_REASONS: tuple[DropReason, ...] = ("withdrawn-consent", "before-your-yes", "over-size", "unwanted")
"""Those for which delivery itself gives an event up."""


class Leases(Destinations):
    """Gives events out, one batch after the other, and enters what became of each."""

    def lease(self, name: str, now: float, *, count: int | None = None, size: int | None = None) -> Lease | None:
        """The next events for a destination, those due for a retry first; None for nothing to send.

        At most ``count`` events and ``size`` bytes: as many as the bounds say, where they are not given. Begins with
        a small write: where that is refused, an acknowledgement would be too, and nothing may be sent.
        """
        if not self._anything(name, now):
            return None
        count = self.bounds.batch_events if count is None else count
        room = self.bounds.batch_kib << 10 if size is None else size
        with self._write() as db:
            db.execute("UPDATE destination SET mark=? WHERE name=?", (now, name))
            view = self._views(db).get(name)
            if view is None:
                return None
            (cursor,) = db.execute("SELECT cursor FROM destination WHERE name=?", (name,)).fetchone()
            items: list[Leased] = []
            upto, own = cursor, view.audience == "private"
            for item in self._next(db, view, cursor, now):
                row = item.row
                room -= len(row.private if own else row.shared or b"")
                if len(items) >= count or (room < 0 and items):
                    break
                items.append(item)
                upto = max(upto, item.seq)
            else:
                upto = max(upto, self._last(db))
                if not items and upto > cursor:  # nothing of it is for this destination
                    db.execute("UPDATE destination SET cursor=? WHERE name=?", (upto, name))
                    self._trim(db)
        return Lease(name, tuple(items), upto) if items else None

    def _anything(self, name: str, now: float) -> bool:
        held = "EXISTS(SELECT 1 FROM held WHERE destination=? AND state='retry' AND next_try"
        found = self._ask(
            "SELECT EXISTS(SELECT 1 FROM event WHERE seq > (SELECT cursor FROM destination WHERE name=?)) "
            f"OR {held}<=?) OR {held}>?)",
            (name, name, now, name, self._latest(now)),
        )
        return bool(found[0][0])

    def _latest(self, now: float) -> float:
        """When the longest pause is over. A later moment is from before the clock was set back: it is over, too."""
        return now + self.bounds.pause_seconds

    def _last(self, db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])

    def _next(self, db: sqlite3.Connection, view: View, cursor: int, now: float) -> Iterator[Leased]:
        """What is due again, the longest first, then what is behind the cursor."""
        kinds = self._kinds(db)
        again = (
            "SELECT seq, at, kind, private, shared, withheld, tries FROM held JOIN event USING(seq) "
            "WHERE destination=? AND state='retry' AND next_try{}? ORDER BY next_try, seq"
        )
        due = db.execute(again.format("<="), (view.name, now))
        odd = db.execute(again.format(">"), (view.name, self._latest(now)))
        new = db.execute(
            "SELECT seq, at, kind, private, shared, withheld, 0 FROM event "
            f"WHERE seq>? AND {self._takes(db, view, kinds)} ORDER BY seq",
            (cursor,),
        )
        for found in (due, odd, new):
            for seq, at, number, private, shared, withheld, tries in found:
                yield Leased(seq, kinds[number].row(at, private, shared, withheld), tries)

    # -- what became of them --------------------------------------------------------------------------------------

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
            floor, tried = self._floor(db), self._still_held(db, lease)
            leased = {item.seq: item.tries for item in lease.items}
            acked, lost, kept = 0, Counter[str](), {}
            for seq in (*tried, *self._unsettled(db, view, lease)):
                outcome = outcomes.get(seq) or _UNNAMED
                if outcome.status in ("accepted", "duplicate"):
                    acked += 1
                    continue
                tries, reason = leased.get(seq, 0), outcome.reason or ""
                if outcome.status == "retry" or reason.startswith("set-aside"):
                    state = "retry" if outcome.status == "retry" else "dead"
                    until = now + pause(tries) if seq in leased else now
                    kept[seq] = (seq, name, state, tries + 1, until, reason)
                else:
                    lost[reason if reason in _REASONS else "rejected-by-server"] += 1
            released = [seq for seq in tried if seq not in kept]
            db.executemany("INSERT OR REPLACE INTO held VALUES(?,?,?,?,?,?)", kept.values())
            db.executemany("DELETE FROM held WHERE seq=? AND destination=?", [(seq, name) for seq in released])
            for dropped, count in lost.items():
                self._drop(db, name, dropped, count)
            db.execute(
                "UPDATE destination SET acked=acked+?, cursor=max(cursor, ?), failures=0, next_try=0, last_error='', "
                "last_report=CASE WHEN ? THEN ? ELSE last_report END, answer=coalesce(?, answer) WHERE name=?",
                (acked, lease.upto, acked, now, json.dumps(dict(answer)) if answer else None, name),
            )
            self._trim(db, floor, released)

    def _still_held(self, db: sqlite3.Connection, lease: Lease) -> list[int]:
        """Of what was tried before, all that still waits: it may have been settled, dropped or expired meanwhile."""
        query = "SELECT 1 FROM held WHERE seq=? AND destination=?"
        return [item.seq for item in lease.items
                if item.tries and db.execute(query, (item.seq, lease.destination)).fetchone()]  # fmt: skip

    def _unsettled(self, db: sqlite3.Connection, view: View, lease: Lease) -> list[int]:
        """Of what a lease covers behind the cursor, all that still waits.

        Events that the destination takes only since the lease was given are among it: they come again.
        """
        found = db.execute(
            "SELECT seq FROM event WHERE seq > (SELECT cursor FROM destination WHERE name=?) AND seq <= ? "
            f"AND {self._takes(db, view)}",
            (view.name, lease.upto),
        )
        return [seq for (seq,) in found]

    def postpone(self, name: str, until: float, error: str) -> None:
        """A whole batch failed: leave the destination alone until then. Survives the process."""
        with self._write() as db:
            db.execute("UPDATE destination SET failures=failures+1, next_try=?, last_error=? WHERE name=?",
                       (until, error[:500], name))  # fmt: skip

    def hurry(self) -> None:
        """Forget every pause, but not what failed: somebody asked for everything to be sent now."""
        with self._write() as db:
            db.execute("UPDATE destination SET next_try=0")
            db.execute("UPDATE held SET next_try=0 WHERE state='retry'")

    # -- what a sender asks ---------------------------------------------------------------------------------------

    def state(self, name: str) -> tuple[int, float]:
        """Failures of a destination in a row, and the moment before which it is left alone."""
        rows = self._ask("SELECT failures, next_try FROM destination WHERE name=?", (name,))
        return (int(rows[0][0]), float(rows[0][1])) if rows else (0, 0.0)

    def mark(self, name: str) -> float:
        """When somebody last began to send to a destination; 0 for never."""
        rows = self._ask("SELECT mark FROM destination WHERE name=?", (name,))
        return float(rows[0][0]) if rows else 0.0

    def acknowledged(self, name: str) -> int:
        """How many events a destination acknowledged so far."""
        rows = self._ask("SELECT acked FROM destination WHERE name=?", (name,))
        return int(rows[0][0]) if rows else 0

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

    def retry_at(self, name: str) -> float | None:
        """When the next event that was put off is due; None for none."""
        rows = self._ask("SELECT min(next_try) FROM held WHERE destination=? AND state='retry'", (name,))
        return None if rows[0][0] is None else float(rows[0][0])
