"""The bounds of the spool: how old its events may be, how many, and how large the file.

Where there is no room for all, the events of the lowest rank go first, and of these the oldest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress

from ..types import DropReason, View
from .destinations import Destinations

_DAY = 86_400.0
_SLACK_BYTES = 4 << 20
"""Free room in the file that is not worth giving back."""
_GONE = "INSERT INTO temp.gone SELECT seq, kind FROM event"


class Room(Destinations):
    """Drops what the bounds leave no room for."""

    def expire(self, now: float, *, every: float = 0.0) -> None:
        """Drop what is older than the bounds allow, and tidy up. ``every``: not if it was done in so many seconds."""
        done = self._ask("SELECT value FROM meta WHERE key='expired'")
        if done and 0 <= now - float(done[0][0]) < every:
            return
        with self._write() as db:
            self._remember(db, "expired", now)
            self._choose(db, f"{_GONE} WHERE at < ?", (int(now - self.bounds.keep_days * _DAY),))
            self._expel(db, "expired")
            self._make_room(db)
            # The reporter of a process leaves a line in the ledger: for a day.
            db.execute("UPDATE destination SET mark=? WHERE removed AND owner IS NOT NULL AND mark=0", (now,))
            db.execute("DELETE FROM destination WHERE removed AND owner IS NOT NULL AND mark<?", (now - _DAY,))
            db.execute("DELETE FROM dropped WHERE destination NOT IN (SELECT name FROM destination)")
            db.execute("DELETE FROM kind WHERE id NOT IN (SELECT kind FROM event)")
            self._trim(db)
            # What is kept so that nobody need look: looked at anew, now and then.
            db.execute("UPDATE stored SET events=(SELECT count(*) FROM event)")
            db.execute("DELETE FROM meta WHERE key LIKE 'searched-%'")
            used, free, size = self._pages(db)
        if free > used and free * size > _SLACK_BYTES:
            with suppress(sqlite3.Error):  # no room for it now, or somebody else is at work
                self._db.execute("VACUUM")

    def _remember(self, db: sqlite3.Connection, key: str, value: float | str) -> None:
        db.execute("INSERT INTO meta VALUES(?,?) ON CONFLICT DO UPDATE SET value=excluded.value", (key, str(value)))

    # -- where there is no room for all ---------------------------------------------------------------------------

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Drop what is more than the bounds allow, within the transaction that brought it."""
        while (excess := self._excess(db)) and self._choose_lowest(db, excess):
            self._expel(db, "spool-full")

    def _excess(self, db: sqlite3.Connection) -> int:
        """How many events there are too many; an estimate, where it is the bytes that are."""
        (events,) = db.execute("SELECT events FROM stored").fetchone()
        used, _, size = self._pages(db)
        over = max(used - (self.bounds.spool_mib << 20) // size, 0)
        return int(min(events, max(events - self.bounds.spool_events, -(-events * over // used))))

    def _choose_lowest(self, db: sqlite3.Connection, count: int) -> bool:
        """Whether any was found."""
        self._choose(db, f"{_GONE} WHERE 0")
        left = count
        ranks: dict[int, list[str]] = {}
        for key, kind in self._kinds(db).items():
            ranks.setdefault(kind.rank, []).append(str(key))
        for rank in sorted(ranks):
            # Nothing of this rank is left up to where the last search ended: nobody looks there twice.
            found = db.execute("SELECT value FROM meta WHERE key=?", (f"searched-{rank}",)).fetchone()
            after = int(found[0]) if found else 0
            query = f"{_GONE} WHERE seq>? AND kind IN ({','.join(ranks[rank])}) ORDER BY seq LIMIT ?"
            left -= db.execute(query, (after, left)).rowcount
            if not left:
                (last,) = db.execute(
                    "SELECT max(seq) FROM temp.gone JOIN kind ON kind=id WHERE rank=?", (rank,)
                ).fetchone()
                self._remember(db, f"searched-{rank}", last)
                break
            self._remember(db, f"searched-{rank}", self._end(db))
        return left < count

    def _choose(self, db: sqlite3.Connection, query: str = "", values: tuple[int, ...] = ()) -> None:
        """Begin a list of events that are to go."""
        db.execute("CREATE TEMP TABLE IF NOT EXISTS gone(seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL)")
        db.execute("DELETE FROM temp.gone")
        db.execute(query, values)

    def _give_up(self, db: sqlite3.Connection, reason: DropReason, views: Iterable[View]) -> None:
        """Count the events on the list as dropped, for each of these destinations that waits for them."""
        kinds = self._kinds(db)
        for view in views:
            name, chosen = view.name, "seq IN (SELECT seq FROM temp.gone)"
            held = db.execute(f"DELETE FROM held WHERE destination=? AND {chosen}", (name,)).rowcount
            cursor = "(SELECT cursor FROM destination WHERE name=?)"
            query = f"SELECT count(*) FROM temp.gone WHERE seq > {cursor} AND {self._takes(db, view, kinds)}"
            self._drop(db, name, reason, held + db.execute(query, (name,)).fetchone()[0])

    def _expel(self, db: sqlite3.Connection, reason: DropReason) -> None:
        """Delete the events on the list, counted for each destination that waits for them."""
        self._give_up(db, reason, self._views(db).values())
        gone = db.execute("DELETE FROM event WHERE seq IN (SELECT seq FROM temp.gone)").rowcount
        db.execute("UPDATE stored SET events=events-?", (gone,))
