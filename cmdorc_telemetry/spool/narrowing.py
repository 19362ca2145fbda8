"""What is stored to be shared shrinks with the decision: body by body, or as a whole, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping

from .destinations import Kind
from .room import Room

Cover = Callable[[bytes], bytes | None]
"""A stored shared body → what may still be shared of it; None for nothing."""
CoverOf = Callable[[str, str, str, int], Cover | None]
"""(spec, event, generation, version) → what becomes of the bodies of such events; None where none may be shared."""
_AT_ONCE = 2000


class Narrowing(Room):
    """Narrows and purges shared bodies. Private ones stay as they are."""

    def narrow(self, key: str, decision: str, cover_of: CoverOf) -> None:
        """Rewrite every shared body to what is still covered, or take it away, unless that was done for ``decision``.

        ``key`` says who judges: whoever knows of other specs does so again. An event that loses its body is dropped
        as ``withdrawn-consent`` for the destinations of somebody else's that wait for it.
        """
        query = "SELECT 1 FROM meta WHERE key=? AND value=?"
        done = (f"narrowed-{key}", decision)
        if self._ask(query, done):
            return
        with self._write() as db:
            if db.execute(query, done).fetchone():  # meanwhile
                return
            kinds = {number: kind for number, kind in self._kinds(db).items() if kind.shareable}
            covers = {number: cover_of(kind.spec, kind.event, kind.generation, kind.version)
                      for number, kind in kinds.items()}  # fmt: skip
            bare = [number for number, cover in covers.items() if cover is None]
            self._choose(db, f"INSERT INTO temp.gone SELECT seq, kind FROM event WHERE kind IN ({_listed(bare)})")
            self._rewrite(db, {number: cover for number, cover in covers.items() if cover is not None})
            self._purge(db, kinds)
            self._trim(db)
            self._remember(db, *done)

    def _rewrite(self, db: sqlite3.Connection, covers: Mapping[int, Cover]) -> None:
        """Narrow the bodies of these kinds; what nothing is left of comes on the list of those to go."""
        query = f"SELECT seq, kind, shared FROM event WHERE seq>? AND kind IN ({_listed(covers)}) ORDER BY seq LIMIT ?"
        after = 0
        while found := db.execute(query, (after, _AT_ONCE)).fetchall():
            after = found[-1][0]
            judged = [(covers[kind](body), body, seq, kind) for seq, kind, body in found]
            db.executemany("UPDATE event SET shared=? WHERE seq=?",
                           [(left, seq) for left, body, seq, _ in judged if left not in (None, body)])  # fmt: skip
            db.executemany("INSERT INTO temp.gone VALUES(?,?)",
                           [(seq, kind) for left, _, seq, kind in judged if left is None])  # fmt: skip

    def _purge(self, db: sqlite3.Connection, kinds: Mapping[int, Kind]) -> None:
        """Take their shared bodies from the events on the list: from now on they are of a kind that has none."""
        gone = [number for (number,) in db.execute("SELECT DISTINCT kind FROM temp.gone")]
        if gone:
            self._give_up(db, "withdrawn-consent",
                          [view for view in self._views(db).values() if view.audience == "shared"])  # fmt: skip
            twins = " ".join(f"WHEN {each} THEN {self._kept(db, kinds[each]._replace(shareable=False))}"
                             for each in gone)  # fmt: skip
            db.execute(f"UPDATE event SET shared=NULL, withheld=NULL, kind=CASE kind {twins} END "
                       "WHERE seq IN (SELECT seq FROM temp.gone)")  # fmt: skip


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))
