"""The values of labels that nobody declared: which there are, and room for how many."""

from __future__ import annotations

import sqlite3

from .tally import OTHER, written

FORGET_DAYS = 30
"""A value that was not seen for so long makes room where there is none: its series end."""


class Room:
    """The values of labels as they were, with those that get room now. Writes nothing until it is told to."""

    def __init__(self, db: sqlite3.Connection, most: int, now: float) -> None:
        """``most``: how many values a label has; others become ``other``."""
        self._most, self._now = most, now
        self._seen: dict[str, dict[str, float]] = {}
        self._forgotten: list[tuple[str, str]] = []
        self._full: set[str] = set()
        """Labels of which no value can be forgotten now: there are many to look through."""
        for name, value, seen in db.execute("SELECT name, value, seen FROM label"):
            self._seen.setdefault(name, {})[value] = min(seen, now)  # later: the clock was wrong

    def place(self, name: str, value: str) -> str:
        """``value``, or ``other`` where there is no room for it."""
        if value == OTHER:
            return OTHER
        known = self._seen.setdefault(name, {})
        if value not in known and len(known) >= self._most and not self._forget(name, known):
            return OTHER
        known[value] = self._now
        return value

    def write(self, db: sqlite3.Connection) -> None:
        """Keep what was seen, and end the series of what made room."""
        for name, value in self._forgotten:
            # Inside of a string the quotes of this would be escaped: it is the label.
            db.execute("DELETE FROM sample WHERE instr(labels, ?)", (written({name: value})[1:-1],))
            db.execute("DELETE FROM label WHERE name = ? AND value = ?", (name, value))
        rows = [(name, value, seen) for name, known in self._seen.items() for value, seen in known.items()]
        db.executemany("INSERT OR REPLACE INTO label VALUES(?,?,?)", [row for row in rows if row[2] == self._now])

    def _forget(self, name: str, known: dict[str, float]) -> bool:
        """Make room for one, if there is a value that was not seen for long."""
        if name in self._full:
            return False
        oldest = min(known, key=lambda value: known[value])
        if known[oldest] > self._now - FORGET_DAYS * 86400:
            self._full.add(name)
            return False
        del known[oldest]
        self._forgotten.append((name, oldest))
        return True
