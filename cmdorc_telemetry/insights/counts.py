"""How often each event was recorded here: true for events of any application. Reads the history, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..history import SECOND
from .reading import opened

_DAY = 86_400
_COUNTS = f"""
SELECT name, CAST((id / {SECOND} - :start) / :length AS INTEGER) AS part, count(*), max(id) / {SECOND}
FROM event WHERE id >= :start * {SECOND} GROUP BY name, part
"""


@dataclass(frozen=True)
class EventCounts:
    """The events of one name within some time, and within each of its parts, such as days, the oldest first."""

    name: str
    last: int
    """The second of the newest one."""
    counts: tuple[int, ...]

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.counts)


def event_counts(history: Path, *, now: float, days: int, parts: int) -> list[EventCounts]:
    """Every event that was recorded in the ``days`` before ``now``, the most frequent first; ``parts`` counts of each.

    Empty where there is no history. Raises StorageError where it cannot be read.
    """
    start, length = now - days * _DAY, days * _DAY / parts
    counts: dict[str, list[int]] = {}
    last: dict[str, int] = {}
    for name, part, number, newest in _counted(history, start, length):
        counts.setdefault(name, [0] * parts)[min(part, parts - 1)] += number
        last[name] = max(newest, last.get(name, 0))
    found = [EventCounts(name, last[name], tuple(each)) for name, each in counts.items()]
    return sorted(found, key=lambda each: (-each.count, each.name))


def _counted(history: Path, start: float, length: float) -> list[tuple[str, int, int, int]]:
    """Event, part, how many, and the second of the newest, of all since ``start``."""
    if not history.exists():
        return []
    with opened(history) as (db, current):
        return db.execute(_COUNTS, {"start": int(start), "length": length}).fetchall() if current else []
