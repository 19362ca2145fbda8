"""What events add to instruments. Pure: what is there already, and which labels there is room for, is not known here.

A sample is told by who it is of, its instrument, its labels, and the part of the instrument that it is: empty for the
value of a counter or gauge; ``sum`` for a histogram's; an upper bound for what lies in that bucket alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ..spec.instruments import EventMetrics, Family, Reading
from .bodies import measured

OTHER = "other"
"""The value of a label for what no value of its own is kept for."""
SUM = "sum"

Label = Callable[[str, str], str]
"""(label, value) → the value that it is given; ``other`` where there is no room for that one."""
E = TypeVar("E")


class Sample(NamedTuple):
    """Which number it is."""

    source: str
    """Who it is of, as ``written``; empty where that is not told apart."""
    metric: str
    labels: str
    """As ``written``: one text, for there are many of them."""
    part: str = ""


class Tally(ABC, Generic[E]):
    """Counts events of a type; what an event adds is for a reporter's own tally to say."""

    def __init__(self, label: Label = lambda name, value: value) -> None:
        self._label = label
        self.families: dict[str, Family] = {}
        self.added: dict[Sample, float] = {}
        """What counters and histograms grow by."""
        self.latest: dict[Sample, tuple[float, float]] = {}
        """What gauges are → since when, in seconds since the epoch."""
        self.alone: set[str] = set()
        """Instruments of which only those series stay that are told here."""

    @abstractmethod
    def count(self, event: E) -> None:
        """Count one event. Of its body, what does not fit its spec is left out."""

    def labels_of(self, known: EventMetrics, body: Mapping[str, Any]) -> dict[str, str]:
        """The labels that an event has."""
        found: dict[str, str] = {}
        for prop, (name, members) in known.enums.items():
            if isinstance(value := body.get(prop), str):
                found[name] = value if value in members else OTHER
        for prop, name in known.free.items():
            if isinstance(value := body.get(prop), str) and value:  # an empty one is the same as none
                found[name] = self._label(name, value)
        return found

    def read(self, reading: Reading, labels: str, value: object, at: float, source: str = "") -> None:
        """Count what a property of an event is; nothing where that is no value of its type."""
        family = reading.family
        if isinstance(value, bool):
            if family.kind == "counter":
                self.add(family, labels, int(value), source=source)
        elif isinstance(value, str):
            if value in reading.ranges:
                self.add(family, labels, 1, bound(reading.ranges[value]), source)
        elif (number := measured(value)) is not None and not reading.ranges:
            if family.kind == "gauge":
                self.set(family, labels, number / reading.per, at, source)
            elif family.kind == "histogram":
                self.observe(family, labels, number / reading.per, source)

    def observe(self, family: Family, labels: str, number: float, source: str = "") -> None:
        """Put a number into its bucket of a histogram, and into the sum."""
        place = bisect_left(family.edges, number)
        self.add(family, labels, 1, bound(family.edges[place] if place < len(family.edges) else inf), source)
        self.add(family, labels, number, SUM, source)

    def add(self, family: Family, labels: str, value: float = 1, part: str = "", source: str = "") -> None:
        """Let a counter, or a part of a histogram, grow."""
        self.families[family.name] = family
        sample = Sample(source, family.name, labels, part)
        self.added[sample] = self.added.get(sample, 0) + value

    def set(self, family: Family, labels: str, value: float, at: float, source: str = "") -> None:
        """Say what a gauge is since ``at``, where nothing later is known."""
        self.families[family.name] = family
        sample = Sample(source, family.name, labels)
        if sample not in self.latest or self.latest[sample][1] <= at:
            self.latest[sample] = value, at


def bound(edge: float) -> str:
    """An upper bound as it is kept."""
    return "+Inf" if edge == inf else repr(float(edge))


def written(labels: Mapping[str, str]) -> str:
    """Labels as one text, sorted by name, without those that are empty."""
    return _encode(sorted([each for each in labels.items() if each[1]])).decode()


def read(labels: str) -> dict[str, str]:
    """What was written."""
    return dict(_decode(labels))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[str, str]]).decode
