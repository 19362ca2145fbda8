"""Import: the records of a segment become rows, once, in one transaction with the segment's offset and all counts."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from ..types import DROP_REASONS, Gated, Row, View
from .destinations import Kind
from .room import Room

_DAY = 86_400.0
_kind: Callable[[Row], tuple[Any, ...]] = attrgetter(*Kind._fields[:-1])


class _Told(msgspec.Struct):
    """What was known of a segment's losses: by its header, by damaged records, and counted as ``corrupt`` of those."""

    drops: dict[str, int] = {}
    damaged: int = 0
    corrupt: int = 0
    slow: int = 0

    def news(self, drops: Mapping[str, int], damaged: int) -> Counter[str]:
        """What was lost since, now that the header tells of ``drops`` and there are so many ``damaged`` ones more."""
        lost: Counter[str] = Counter()
        for reason, count in (Counter(drops) - Counter(self.drops)).items():
            lost[reason if reason in DROP_REASONS else "storage-failed"] += count
        # What the owner counted as it failed to write lies there damaged too: the same loss.
        self.damaged += damaged
        corrupt = max(self.corrupt, self.damaged - drops.get("storage-failed", 0))
        lost["corrupt"] += corrupt - self.corrupt
        self.drops, self.corrupt = dict(drops), corrupt
        return lost


_told = msgspec.json.Decoder(_Told)


class Intake(Room):
    """Takes in what the gate made of segments."""

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
        slow: int = 0,
        source: str | None = None,
        still_there: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Write the rows of a segment between two offsets, once. False: somebody else did, or the file is gone.

        ``drops`` are the cumulative losses that the segment's header tells of, ``slow`` its owner's slow appends;
        ``source`` is the journal it is of.
        """
        with self._write() as db:
            row = db.execute("SELECT off, done, drops FROM segment WHERE name=?", (segment,)).fetchone()
            known, done, told = row or (0, None, "{}")
            if done is not None or known != before or not still_there():
                return False
            views = [view for view in self._views(db).values() if view.source in (None, source)]
            numbers = self._insert(db, gated.rows, views)
            seen = _told.decode(told)
            lost = seen.news(drops, damaged)
            lost["corrupt"] += gated.unreadable
            if slow > seen.slow:
                db.execute("INSERT INTO meta VALUES('slow', ?) ON CONFLICT DO UPDATE SET value=value+excluded.value",
                           (slow - seen.slow,))  # fmt: skip
                seen.slow = slow
            self._count(db, views, numbers, lost)
            for reason, count in gated.withheld.items():
                db.execute("INSERT INTO withheld VALUES(?,?) ON CONFLICT DO UPDATE SET n=n+excluded.n", (reason, count))
            db.execute(
                "INSERT INTO segment(name, off, drops) VALUES(?,?,?) "
                "ON CONFLICT DO UPDATE SET off=excluded.off, drops=excluded.drops",
                (segment, after, msgspec.json.encode(seen).decode()),
            )
            self._make_room(db)
        return True

    def _insert(self, db: sqlite3.Connection, rows: Sequence[Row], views: Sequence[View]) -> Counter[int]:
        """Add the rows. How many there are of each kind."""
        keys = [(_kind(row), row.shared is not None) for row in rows]
        asked = {view.source for view in views}
        numbers = {key: self._number(db, *key, asked) for key in set(keys)}
        kinds = [numbers[key] for key in keys]
        db.executemany(
            "INSERT INTO event(at, kind, private, shared) VALUES(?,?,?,?)",
            [(row.at, kind, row.private, row.shared) for row, kind in zip(rows, kinds, strict=True)],
        )
        if any(row.withheld for row in rows):  # which is seldom: another column would cost all events
            first = self._end(db) - len(rows) + 1
            db.executemany("UPDATE event SET withheld=? WHERE seq=?",
                           [(json.dumps(dict(row.withheld)), seq) for seq, row in enumerate(rows, first)
                            if row.withheld])  # fmt: skip
        db.execute("UPDATE stored SET events=events+?", (len(rows),))
        return Counter(kinds)

    def _number(
        self, db: sqlite3.Connection, kind: tuple[Any, ...], shareable: bool, asked: Collection[str | None]
    ) -> int:  # fmt: skip
        """The row of ``kind`` of such events. A source that nobody ``asked`` for is left out: there are too many."""
        spec, event, version, generation, source, rank = kind
        kept = source if source in asked else ""
        return self._kept(db, Kind(spec, event, version, generation, kept, rank, shareable))

    def _count(
        self, db: sqlite3.Connection, views: Sequence[View], numbers: Mapping[int, int], lost: Mapping[str, int]
    ) -> None:  # fmt: skip
        """Enter what a segment brought, and what it lost, for each destination and, for those to come, for all."""
        known = self._kinds(db)
        for view in views:
            wanted = sum(count for number, count in numbers.items() if known[number].is_for(view))
            db.execute("UPDATE destination SET recorded=recorded+? WHERE name=?",
                       (wanted + sum(lost.values()), view.name))  # fmt: skip
            for reason, count in lost.items():
                self._drop(db, view.name, reason, count)
        for reason, count in lost.items():
            if count:
                db.execute("INSERT INTO lost VALUES(?,?) ON CONFLICT DO UPDATE SET n=n+excluded.n", (reason, count))

    def finish(self, segment: str, now: float) -> None:
        """Mark a segment whose file is gone; forget those finished more than a day ago."""
        with self._write() as db:
            db.execute("UPDATE segment SET done=? WHERE name=?", (now, segment))
            db.execute("DELETE FROM segment WHERE done < ?", (now - _DAY,))
