"""What a batch adds to the metrics. Pure: what is there already, and which labels there is room for, is not known here.

A sample is told by its metric, its labels, and the part of the metric that it is: empty for the value of a counter or
gauge; ``sum`` for a histogram's; an upper bound for what lies in that bucket alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from itertools import product
from math import inf
from typing import Any, NamedTuple

import msgspec

from cmdorc_telemetry.types import BatchEvent

from .metrics import EVENTS, Catalogue, EventMetrics, Family, Reading

OTHER = "other"
"""The label of what no value of its own is kept for."""
SUM = "sum"
_MOST_FORESEEN = 32
"""How many series are begun at zero with one that is new: more enums than that would make series that nobody needs."""

_MOST = 2**53
"""What is further from zero is no value that capture takes."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Label = Callable[[str, str], str]
"""(label, value) → the value that it is given; ``other`` where there is no room for that one."""

_INFO = ("app_name", "app_version", "cmdorc_version", "python_version", "os", "arch")


class Sample(NamedTuple):
    """Which number it is."""

    metric: str
    labels: str
    """As ``written``: one text, for there are many of them."""
    part: str = ""


class Tally:
    """Counts events."""

    def __init__(self, catalogue: Catalogue, label: Label = lambda name, value: value) -> None:
        self._catalogue, self._label = catalogue, label
        self.families: dict[str, Family] = {}
        self.added: dict[Sample, float] = {}
        """What counters and histograms grow by."""
        self.latest: dict[Sample, tuple[float, float]] = {}
        """What gauges are → since when, in seconds since the epoch."""
        self.info = ""
        """What recorded the latest event."""

    def count(self, event: BatchEvent) -> None:
        """Count one event. Of its body, what does not fit its spec is left out."""
        body = _body(event)
        spec, at = str(body.get("spec", "")), _seconds(str(body.get("timestamp", "")))
        self._add(EVENTS, written({"spec": spec, "event": event.event}))
        self.info = written({name: body[name] for name in _INFO if isinstance(body.get(name), str)})
        known = self._catalogue.find(spec, event.event)
        if known is None:
            return
        named, declared = self._labels_of(known, body)
        labels = written(named)
        if Sample(known.total.name, labels) not in self.added:
            self._foresee(known, named, declared)
        self._add(known.total, labels)
        if at is not None:
            self._set(known.last, labels, at, at)
        for reading in known.readings:
            self._read(reading, labels, body.get(reading.prop), at or 0.0)

    def _labels_of(
        self, known: EventMetrics, body: Mapping[str, Any]
    ) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """The labels of an event; of those whose values are declared, all values."""
        labels: dict[str, str] = {}
        declared: dict[str, tuple[str, ...]] = {}
        for prop, (name, members) in known.enums.items():
            value = body.get(prop)
            if isinstance(value, str):
                labels[name], declared[name] = value if value in members else OTHER, members
        for prop, name in known.free.items():
            value = body.get(prop)
            if isinstance(value, str):
                labels[name] = self._label(name, value)
        return labels, declared

    def _foresee(self, known: EventMetrics, labels: Mapping[str, str], declared: Mapping[str, tuple[str, ...]]) -> None:
        """Begin at zero what may come beside a new series: Prometheus sees no growth in what begins with one."""
        members = [[(name, value) for value in values] for name, values in declared.items()]
        others = list(product(*members)) if members else []
        if len(others) <= _MOST_FORESEEN:
            for each in others:
                self._add(known.total, written({**labels, **dict(each)}), 0)

    def _read(self, reading: Reading, labels: str, value: object, at: float) -> None:
        family = reading.family
        if isinstance(value, bool):
            if family.kind == "counter":
                self._add(family, labels, int(value))
        elif isinstance(value, int | float) and abs(value) <= _MOST and not reading.ranges:
            number = value / reading.per
            if family.kind == "gauge":
                self._set(family, labels, number, at)
            elif family.kind == "histogram":
                place = bisect_left(family.edges, number)
                self._add(family, labels, 1, bound(family.edges[place] if place < len(family.edges) else inf))
                self._add(family, labels, number, SUM)
        elif isinstance(value, str) and value in reading.ranges:
            self._add(family, labels, 1, bound(reading.ranges[value]))

    def _add(self, family: Family, labels: str, value: float = 1, part: str = "") -> None:
        self.families[family.name] = family
        sample = Sample(family.name, labels, part)
        self.added[sample] = self.added.get(sample, 0) + value

    def _set(self, family: Family, labels: str, value: float, at: float) -> None:
        self.families[family.name] = family
        sample = Sample(family.name, labels)
        if sample not in self.latest or self.latest[sample][1] <= at:
            self.latest[sample] = value, at


def bound(edge: float) -> str:
    """An upper bound as it is kept."""
    return "+Inf" if edge == inf else repr(float(edge))


def _body(event: BatchEvent) -> dict[str, Any]:
    """The body, decoded; empty where it is nothing that the gate lets out."""
    try:
        return _decode(event.body)
    except _UNREADABLE:
        return {}


def written(labels: Mapping[str, str]) -> str:
    """Labels as one text, sorted by name; an empty value is the same as none."""
    return _encode(sorted([each for each in labels.items() if each[1]])).decode()


def read(labels: str) -> list[tuple[str, str]]:
    """What was written."""
    return _decode_labels(labels)


@lru_cache(maxsize=256)  # most events of a batch are of the same few seconds
def _seconds(timestamp: str) -> float | None:
    """A timestamp as seconds since the epoch; None for what is none."""
    try:
        moment = msgspec.convert(timestamp, datetime)
    except msgspec.ValidationError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


_encode = msgspec.json.Encoder().encode
_decode_labels = msgspec.json.Decoder(list[tuple[str, str]]).decode
_decode = msgspec.json.Decoder(dict[str, Any]).decode  # made here: two threads must not be the first to use a type
