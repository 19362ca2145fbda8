"""What a batch adds to the metrics. Pure: what is there already, and which values there is room for, is not known here.

A sample is told by who it is of, its instrument, its attributes, and the part of the instrument that it is: empty for
the value of a counter or gauge; ``sum`` for a histogram's; an upper bound for what lies in that bucket alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple

import msgspec

from .fields import ERROR, PIPELINE, RUN_RESULT, RUN_STATE, TASK_RESULT, TRACES, Facts, measured
from .metrics import RUN_ERRORS, Catalogue, EventMetrics, Family, Reading

OTHER = "other"
"""The value of an attribute for what no value of its own is kept for."""
SUM = "sum"

Label = Callable[[str, str], str]
"""(attribute, value) → the value that it is given; ``other`` where there is no room for that one."""


class Sample(NamedTuple):
    """Which number it is."""

    service: str
    """Who it is of, as ``written``: one text, for there are many of them."""
    metric: str
    attributes: str
    """As ``written``."""
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

    def count(self, facts: Facts) -> None:
        """Count one event. Of its body, what does not fit its spec is left out."""
        service = written(facts.service())
        if facts.kind[0] == TRACES:
            self._conventions(service, facts)
        elif (known := self._catalogue.find(facts.spec, facts.event)) is not None:
            attributes = written(self._attributes(known, facts))
            self._add(service, known.total, attributes)
            for reading in known.readings:
                self._read(reading, service, attributes, facts.body.get(reading.prop), facts.seconds)

    def _conventions(self, service: str, facts: Facts) -> None:
        """A chain, or a run of one, as the conventions for CI/CD have it."""
        name = facts.body.get("trigger")
        attributes = {PIPELINE: self._label(PIPELINE, name)} if isinstance(name, str) else {}
        if facts.error is not None:
            attributes[ERROR] = facts.error
        duration = measured(facts.body.get("duration_ms"))
        if facts.event == "traces.chain_ended" and duration is not None:
            attributes |= {RUN_STATE: "executing", RUN_RESULT: facts.result(str(facts.body.get("outcome", "")))}
            self._observe(self._catalogue.chain_duration, service, written(attributes), duration / 1000)
        elif facts.event == "traces.run_ended" and facts.error is not None:
            self._add(service, RUN_ERRORS, written(attributes))

    def _attributes(self, known: EventMetrics, facts: Facts) -> dict[str, str]:
        found: dict[str, str] = {}
        for prop, members in known.enums.items():
            if isinstance(value := facts.body.get(prop), str):
                name, value = facts.called(prop), value if value in members else OTHER
                found[name] = facts.result(value) if name == TASK_RESULT else value
        for prop in known.free:
            if isinstance(value := facts.body.get(prop), str):
                found[facts.called(prop)] = self._label(facts.called(prop), value)
        return found

    def _read(self, reading: Reading, service: str, attributes: str, value: object, at: float) -> None:
        family = reading.family
        if isinstance(value, bool):
            if family.kind == "sum":
                self._add(service, family, attributes, int(value))
        elif isinstance(value, str):
            if value in reading.ranges:
                self._add(service, family, attributes, 1, bound(reading.ranges[value]))
        elif (number := measured(value)) is not None and not reading.ranges:
            if family.kind == "gauge":
                self._set(service, family, attributes, number / reading.per, at)
            elif family.kind == "histogram":
                self._observe(family, service, attributes, number / reading.per)

    def _observe(self, family: Family, service: str, attributes: str, number: float) -> None:
        place = bisect_left(family.edges, number)
        self._add(service, family, attributes, 1, bound(family.edges[place] if place < len(family.edges) else inf))
        self._add(service, family, attributes, number, SUM)

    def _add(self, service: str, family: Family, attributes: str, value: float = 1, part: str = "") -> None:
        self.families[family.name] = family
        sample = Sample(service, family.name, attributes, part)
        self.added[sample] = self.added.get(sample, 0) + value

    def _set(self, service: str, family: Family, attributes: str, value: float, at: float) -> None:
        self.families[family.name] = family
        sample = Sample(service, family.name, attributes)
        if sample not in self.latest or self.latest[sample][1] <= at:
            self.latest[sample] = value, at


def bound(edge: float) -> str:
    """An upper bound as it is kept."""
    return "+Inf" if edge == inf else repr(float(edge))


def written(attributes: Mapping[str, Any]) -> str:
    """Attributes as one text, sorted by name."""
    return _encode(sorted(attributes.items())).decode()


def read(attributes: str) -> dict[str, str]:
    """What was written."""
    return dict(_decode(attributes))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[str, str]]).decode
