"""Statistics of the last hour, or whatever a window is, of one group of events: in bounded space, pure.

A window is a dozen panes. Each sums up the events of its own span of time; a pane that is too old goes as a whole, so a
window covers between eleven and twelve twelfths of its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct, field

from . import sketch

PANES = 12
QUANTILE = 0.95


class Numbers(Struct, array_like=True):
    """The values of one property in one pane."""

    count: int = 0
    total: float = 0.0
    ranges: dict[int, int] = field(default_factory=dict)

    def add(self, value: float, *, sketched: bool) -> None:
        """Take in a value."""
        self.count += 1
        self.total += value
        if sketched:
            sketch.add(self.ranges, value)


class Pane(Struct, array_like=True):
    """The events of one span of time."""

    count: int = 0
    failed: int = 0
    decided: int = 0
    """How many failed or succeeded."""
    numbers: dict[str, Numbers] = field(default_factory=dict)


class Observation(NamedTuple):
    """What is watched of one event."""

    at: float
    """Seconds since the epoch."""
    numbers: Mapping[str, float] = {}
    failed: bool | None = None
    """None where it neither failed nor succeeded."""
    sketched: frozenset[str] = frozenset()
    """Of which of the numbers a quantile is judged: the others need no sketch."""


class Statistic(NamedTuple):
    """A value, and how many events it is made of."""

    value: float | None
    """None where there is nothing to make it of."""
    sample: int


class Window(Struct, array_like=True):
    """The panes of one group, by number: that of the span ``[n, n + 1) * length / PANES`` is ``n``."""

    panes: dict[int, Pane] = field(default_factory=dict)

    def add(self, seen: Observation, length: float) -> None:
        """Take in an event."""
        pane = self.panes.setdefault(int(seen.at * PANES // length), Pane())
        pane.count += 1
        pane.decided += seen.failed is not None
        pane.failed += seen.failed is True
        for name, value in seen.numbers.items():
            pane.numbers.setdefault(name, Numbers()).add(value, sketched=name in seen.sketched)

    def trim(self, now: float, length: float) -> bool:
        """Let go of the panes that are too old at ``now``. Whether there were any."""
        oldest = first_pane(now, length)
        old = [number for number in self.panes if number < oldest]
        for number in old:
            del self.panes[number]
        return bool(old)

    def count(self) -> int:
        """How many events there are."""
        return sum(pane.count for pane in self.panes.values())

    def failure_share(self) -> Statistic:
        """Of those that failed or succeeded, how many failed."""
        decided = sum(pane.decided for pane in self.panes.values())
        failed = sum(pane.failed for pane in self.panes.values())
        return Statistic(failed / decided if decided else None, decided)

    def mean(self, name: str) -> Statistic:
        """The mean of a property."""
        values = self._numbers(name)
        count = sum(each.count for each in values)
        return Statistic(sum(each.total for each in values) / count if count else None, count)

    def p95(self, name: str) -> Statistic:
        """What 95 of 100 values of a property do not exceed."""
        ranges = sketch.merged(each.ranges for each in self._numbers(name))
        return Statistic(sketch.quantile(ranges, QUANTILE), sum(ranges.values()))

    def _numbers(self, name: str) -> list[Numbers]:
        return [pane.numbers[name] for pane in self.panes.values() if name in pane.numbers]


def first_pane(now: float, length: float) -> int:
    """The number of the oldest pane that a window has at ``now``."""
    return int(now * PANES // length) - PANES + 1
