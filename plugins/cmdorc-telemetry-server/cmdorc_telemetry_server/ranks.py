"""Where an install stands among all: medians, mid-ranks, percentiles. Pure but for the lock of :class:`Ranks`."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping

from msgspec import Struct

WINDOW_DAYS = 30
"""A percentile is computed over today (UTC) and the 29 days before it."""
MOST_DISTINCT = 1_000
"""Up to so many different durations of one install and day are kept exactly."""
_STEP = 0.02


class Rank(Struct, frozen=True):
    """An install's place among all."""

    below: int
    """Medians below its own."""
    equal: int
    """Medians that equal its own, itself included."""
    installs: int
    """All medians."""


def percentile(rank: Rank | None, k: int) -> int | None:
    """The mid-rank, 0 to 100, higher is slower; None below ``k`` installs or without a rank."""
    if rank is None or rank.installs < k:
        return None
    return round(100 * (rank.below + rank.equal / 2) / rank.installs)


def median(counts: Mapping[int, int]) -> float | None:
    """The median of a multiset of values; the mean of the middle two where their number is even."""
    total = sum(counts.values())
    low, high = (total - 1) // 2, total // 2
    seen, first = 0, 0
    for value in sorted(counts):
        before, seen = seen, seen + counts[value]
        if before <= low < seen:
            first = value
        if high < seen:
            return (first + value) / 2
    return None


def merge(into: dict[int, int], counts: Mapping[int, int]) -> None:
    """Add the multiset ``counts`` to ``into``."""
    for value, number in counts.items():
        into[value] = into.get(value, 0) + number


def compact(counts: dict[int, int]) -> dict[int, int]:
    """``counts``; with more than MOST_DISTINCT values, rounded by 1 % and 0.5 at most: never over 1,900 values."""
    if len(counts) <= MOST_DISTINCT:
        return counts
    rounded: dict[int, int] = {}
    for value, number in counts.items():
        near = round(math.exp(round(math.log(value) / _STEP) * _STEP)) if value else 0
        rounded[near] = rounded.get(near, 0) + number
    return rounded


class Ranks:
    """The median of every install, sorted: a rank costs two bisections, a change moves one number.

    Written by the store's writer, read by the event loop.
    """

    def __init__(self, medians: Iterable[tuple[bytes, float]] = ()) -> None:
        self._lock = threading.Lock()
        self._of = dict(medians)
        self._sorted = sorted(self._of.values())

    def update(self, changed: Mapping[bytes, float | None]) -> None:
        """Replace medians; None removes one."""
        with self._lock:
            for install, new in changed.items():
                old = self._of.pop(install, None)
                if old is not None:
                    del self._sorted[bisect_left(self._sorted, old)]
                if new is not None:
                    self._of[install] = new
                    insort(self._sorted, new)

    def rank(self, install: bytes) -> Rank | None:
        """The install's place, or None where it has no median."""
        with self._lock:
            own = self._of.get(install)
            if own is None:
                return None
            below = bisect_left(self._sorted, own)
            return Rank(below, bisect_right(self._sorted, own) - below, len(self._sorted))
