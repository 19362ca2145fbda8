"""The destinations that the spool keeps events for: which there are, what each takes, and where its cursor is.

A row is one event; each destination has a cursor, and rows of its own (``held``) only for exceptions: retry later,
set aside. What rows have in common (spec, event, generation, rank, …) is a row of ``kind``. Every count moves in the
same transaction as what it counts, so that at each moment and for each destination
``recorded = acknowledged + pending + dropped``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ..types import Row, View
from .file import SpoolFile

_NOTHING: Mapping[str, str] = MappingProxyType({})
FORMER = "led "
"""Begins the keys of what is kept of places that destinations led to: the name, where, and when it took events last."""


class Kind(NamedTuple):
    """What an event has in common with others."""

    spec: str
    event: str
    version: int
    generation: str
    source: str
    """The journal that it came from, where a destination takes the events of that one only; else empty."""
    rank: int
    shareable: bool
    """Whether there is a shared body."""

    def is_for(self, view: View) -> bool:
        """Whether a destination gets such events."""
        return view.wants(self.spec, self.event, self.shareable, self.source)

    def row(self, at: int, private: bytes, shared: bytes | None, withheld: str | None) -> Row:
        """An event of this kind, of what is stored of it."""
        return Row(spec=self.spec, event=self.event, version=self.version, at=at, generation=self.generation,
                   source=self.source, rank=self.rank, private=private, shared=shared,
                   withheld=json.loads(withheld) if withheld else _NOTHING)  # fmt: skip


class Destinations(SpoolFile):
    """Adds and removes destinations; what the other parts of the spool ask about them."""

    def register(
        self, views: Sequence[View], *, withdrawn: Sequence[str] = (), undecided: Sequence[str] = (),
        owner_lives: Callable[[str], bool] | None = None,
    ) -> None:  # fmt: skip
        """Make ``views`` the destinations there are. A new one starts at the end; one that is gone loses its rows.

        One that leads elsewhere begins anew. Only what is the user's own before and after takes along what waits.
        ``withdrawn`` are those gone because consent is: their rows are dropped for that reason. The ``undecided`` are
        left as they are until a person has answered, and destinations of reporters injected by code while
        ``owner_lives`` says so.
        """
        with self._write() as db:
            end = self._end(db)
            old = self._views(db)
            for view in views:
                before = old.get(view.name)
                if before == view:
                    continue
                self._lead_elsewhere(db, view)
                if before is not None:
                    if before.identity == view.identity or before.audience == view.audience == "private":
                        self._change(db, before, view)
                    else:
                        self._abandon(db, before, "destination-changed")
                kinds = None if view.kinds is None else json.dumps(sorted(view.kinds))
                db.execute(
                    "INSERT INTO destination(name, audience, identity, kinds, cursor) VALUES(?,?,?,?,?) "
                    "ON CONFLICT DO UPDATE SET audience=excluded.audience, identity=excluded.identity, "
                    "kinds=excluded.kinds, cursor=CASE WHEN removed THEN excluded.cursor ELSE cursor END, removed=0",
                    (view.name, view.audience, view.identity, kinds, end),
                )
            known = {*undecided, *(view.name for view in views)}
            rows = db.execute("SELECT name, owner FROM destination WHERE NOT removed").fetchall()
            for name, owner in rows:
                if name in known or (owner is not None and owner_lives is not None and owner_lives(owner)):
                    continue
                gone = "withdrawn-consent" if name in withdrawn else "destination-removed"
                self._abandon(db, old[name], "reporter-gone" if owner else gone)
            self._trim(db)

    def adopt(self, view: View, owner: str) -> None:
        """Add the destination of a reporter injected by code; ``owner`` is how others see whether it lives."""
        with self._write() as db:
            db.execute(
                "INSERT INTO destination(name, audience, identity, source, cursor, owner) VALUES(?,?,?,?,?,?) "
                "ON CONFLICT DO NOTHING",  # the spool is opened again where it could not be used for a while
                (view.name, view.audience, view.identity, view.source, self._end(db), owner),
            )
            self._trim(db)  # where it is the only one, nobody needs what came before it

    def abandon(self, name: str, reason: str) -> None:
        """Drop what waits for a destination, for ``reason``, and remove it; harmless where that was done."""
        with self._write() as db:
            view = self._views(db).get(name)
            if view is not None:
                self._abandon(db, view, reason)
                self._trim(db)

    def _lead_elsewhere(self, db: sqlite3.Connection, view: View) -> None:
        """Forget what one place said where another takes over its name, but not that it was there: it took events."""
        elsewhere = "FROM destination WHERE name=? AND identity<>?"
        db.execute(f"INSERT OR REPLACE INTO meta SELECT '{FORMER}'||name||' '||identity, last_report {elsewhere} "
                   "AND last_report>0", (view.name, view.identity))  # fmt: skip
        db.execute("UPDATE destination SET failures=0, next_try=0, last_report=0, last_error='', answer='{}', "
                   "policy='{}', policy_at=0 WHERE name=? AND identity<>?", (view.name, view.identity))  # fmt: skip

    def _end(self, db: sqlite3.Connection) -> int:
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name='event'").fetchone()
        return int(row[0]) if row else 0

    def _abandon(self, db: sqlite3.Connection, view: View, reason: str) -> None:
        held = db.execute("DELETE FROM held WHERE destination=?", (view.name,)).rowcount
        self._drop(db, view.name, reason, held + self._waiting(db, view.name, self._takes(db, view)))
        # What its receiver asked for goes, too: whoever is there next under this name is asked anew.
        db.execute("UPDATE destination SET removed=1, policy='{}', policy_at=0 WHERE name=?", (view.name,))

    def _change(self, db: sqlite3.Connection, old: View, new: View) -> None:
        """It takes other events now: those no longer are dropped, those from now on are recorded."""
        name, before, after = new.name, self._takes(db, old), self._takes(db, new)
        refused = db.execute(
            "DELETE FROM held WHERE destination=? AND seq IN "
            f"(SELECT seq FROM held JOIN event USING(seq) WHERE destination=? AND NOT {after})",
            (name, name),
        ).rowcount
        self._drop(db, name, "destination-changed", refused + self._waiting(db, name, f"{before} AND NOT {after}"))
        gained = self._waiting(db, name, f"{after} AND NOT {before}")
        db.execute("UPDATE destination SET recorded=recorded+? WHERE name=?", (gained, name))

    # -- what the other parts ask ---------------------------------------------------------------------------------

    def _views(self, db: sqlite3.Connection) -> dict[str, View]:
        found = db.execute("SELECT name, audience, identity, kinds, source FROM destination WHERE NOT removed")
        return {
            name: View(name=name, audience=audience, identity=identity, source=source,
                       kinds=None if kinds is None else frozenset((spec, event) for spec, event in json.loads(kinds)))
            for name, audience, identity, kinds, source in found
        }  # fmt: skip

    def _kinds(self, db: sqlite3.Connection) -> dict[int, Kind]:
        return {row[0]: Kind(*row[1:]) for row in db.execute(f"SELECT id, {', '.join(Kind._fields)} FROM kind")}

    def _kept(self, db: sqlite3.Connection, kind: Kind) -> int:
        """The number of a kind, which is kept from now on."""
        columns, values = ", ".join(Kind._fields), ",".join("?" * len(kind))
        db.execute(f"INSERT INTO kind({columns}) VALUES({values}) ON CONFLICT DO NOTHING", kind)
        return int(db.execute(f"SELECT id FROM kind WHERE ({columns}) = ({values})", kind).fetchone()[0])

    def _takes(self, db: sqlite3.Connection, view: View, kinds: Mapping[int, Kind] | None = None) -> str:
        """The condition, in SQL, that an event is for a destination."""
        known = self._kinds(db) if kinds is None else kinds
        wanted = [key for key, kind in known.items() if kind.is_for(view)]
        return "(1)" if len(wanted) == len(known) else f"(kind IN ({','.join(map(str, wanted))}))"

    def _waiting(self, db: sqlite3.Connection, name: str, condition: str) -> int:
        """How many events behind the cursor of a destination meet a condition."""
        query = f"SELECT count(*) FROM event WHERE seq > (SELECT cursor FROM destination WHERE name=?) AND {condition}"
        return int(db.execute(query, (name,)).fetchone()[0])

    def _drop(self, db: sqlite3.Connection, name: str, reason: str, count: int) -> None:
        if count:
            db.execute(
                "INSERT INTO dropped VALUES(?,?,?) ON CONFLICT DO UPDATE SET n=n+excluded.n", (name, reason, count)
            )

    def _floor(self, db: sqlite3.Connection) -> int:
        """The number up to which no destination waits for an event, but for those held."""
        row = db.execute("SELECT coalesce(min(cursor), 0) FROM destination WHERE NOT removed").fetchone()
        return int(row[0])

    def _trim(self, db: sqlite3.Connection, after: int = 0, released: Sequence[int] = ()) -> None:
        """Delete the rows that nobody needs any more, of those behind ``after`` and of those ``released``."""
        floor, held = self._floor(db), "seq IN (SELECT seq FROM held WHERE seq>? AND seq<=?)"
        gone = db.execute(f"DELETE FROM event WHERE seq>? AND seq<=? AND NOT {held}", (after, floor) * 2).rowcount
        gone += db.executemany(
            "DELETE FROM event WHERE seq=? AND seq<=? AND NOT EXISTS (SELECT 1 FROM held WHERE held.seq=event.seq)",
            [(seq, after) for seq in released],
        ).rowcount
        db.execute("UPDATE stored SET events=events-?", (gone,))
