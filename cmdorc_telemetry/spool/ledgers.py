"""What others may know of the spool: the ledger of each destination, and the oldest and newest events."""

from __future__ import annotations

import json
from collections.abc import Collection

from ..types import Ledger, Row
from .destinations import FORMER, Destinations, Kind


class Ledgers(Destinations):
    """Answers, each as of one moment, also while other processes write."""

    def ledger(self) -> dict[str, Ledger]:
        """The bookkeeping of every destination there ever was, as of one moment."""
        db = self._db
        with self._transaction("DEFERRED"):
            views, kinds = self._views(db), self._kinds(db)
            waiting = {name: self._waiting(db, name, self._takes(db, view, kinds)) for name, view in views.items()}
            held: dict[str, dict[str, int]] = {}
            for name, state, count in db.execute("SELECT destination, state, count(*) FROM held GROUP BY 1, 2"):
                held.setdefault(name, {})[state] = count
            dropped: dict[str, dict[str, int]] = {}
            for name, reason, count in db.execute("SELECT destination, reason, n FROM dropped"):
                dropped.setdefault(name, {})[reason] = count
            found = db.execute("SELECT name, recorded, acked, failures, next_try, last_report, last_error, answer, "
                               "removed FROM destination ORDER BY name").fetchall()  # fmt: skip
        return {
            name: Ledger(
                name=name, recorded=recorded, acknowledged=acked, removed=bool(removed), failures=failures,
                pending=waiting.get(name, 0) + sum(held.get(name, {}).values()), next_try=next_try,
                set_aside=held.get(name, {}).get("dead", 0), last_report=last_report, last_error=last_error,
                answer=json.loads(answer), dropped=dropped.get(name, {}),
            )
            for name, recorded, acked, failures, next_try, last_report, last_error, answer, removed in found
        }  # fmt: skip

    def identities(self, since: float) -> dict[str, str]:
        """Where each destination of the configuration leads, and those removed that took anything after ``since``."""
        return dict(self._ask("SELECT name, identity FROM destination WHERE owner IS NULL AND "
                              "(NOT removed OR last_report >= ?)", (since,)))  # fmt: skip

    def former(self, since: float) -> list[tuple[str, str]]:
        """Name and place of where destinations led before, of those that took anything after ``since``."""
        found = self._ask("SELECT key FROM meta WHERE key LIKE ? AND CAST(value AS REAL) >= ?", (f"{FORMER}%", since))
        return [(key.split(" ")[1], key.split(" ", 2)[2]) for (key,) in found]

    def withheld(self) -> dict[str, int]:
        """Shared bodies that the gate held back, by reason."""
        return dict(self._ask("SELECT reason, n FROM withheld"))

    def slow(self) -> int:
        """Captures that had to wait for the disk."""
        rows = self._ask("SELECT value FROM meta WHERE key='slow'")
        return int(rows[0][0]) if rows else 0

    def size(self) -> tuple[int, int]:
        """How many events are stored, and how many bytes of the file are in use."""
        with self._transaction("DEFERRED"):
            (events,) = self._db.execute("SELECT events FROM stored").fetchone()
            used, _, page = self._pages(self._db)
        return int(events), used * page

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
        return self._row("kind.event=coalesce(?, kind.event) AND (shareable OR NOT ?)", (event, shared))

    def next(self, name: str, count: int) -> list[Row]:
        """The first events that wait to be sent to a destination, at most ``count``; none that was set aside."""
        with self._transaction("DEFERRED"):
            view, kinds = self._views(self._db).get(name), self._kinds(self._db)
            if view is None:
                return []
            rows = self._db.execute(
                "SELECT kind, at, private, shared, withheld FROM event WHERE seq > (SELECT cursor FROM destination "
                f"WHERE name=?) AND {self._takes(self._db, view, kinds)} OR seq IN (SELECT seq FROM held "
                "WHERE destination=? AND state='retry') ORDER BY seq LIMIT ?", (name, name, count),
            ).fetchall()  # fmt: skip
        return [kinds[kind].row(*stored) for kind, *stored in rows]

    def anonymized(self) -> dict[tuple[str, str, str], int]:
        """Event, field and the anonymizer that withheld it → in how many of the events that are still stored."""
        found: dict[tuple[str, str, str], int] = {}
        for event, withheld, count in self._ask("SELECT event, withheld, count(*) FROM event JOIN kind ON kind=kind.id "
                                                "WHERE withheld IS NOT NULL GROUP BY 1, 2"):  # fmt: skip
            for name, plugin in json.loads(withheld).items():
                found[event, name, plugin] = found.get((event, name, plugin), 0) + count
        return found

    def row(self, seq: int) -> Row | None:
        """The event of that number; None where it is not stored any more."""
        return self._row("seq=?", (seq,))

    def _row(self, condition: str, values: tuple[object, ...]) -> Row | None:
        """The last of the events that meet ``condition``."""
        columns = ", ".join(f"kind.{name}" for name in Kind._fields)
        rows = self._ask(f"SELECT at, private, shared, withheld, {columns} FROM event JOIN kind ON kind=kind.id "
                         f"WHERE {condition} ORDER BY seq DESC LIMIT 1", values)  # fmt: skip
        if not rows:
            return None
        at, private, body, withheld, *kind = rows[0]
        return Kind(*kind).row(at, private, body, withheld)
