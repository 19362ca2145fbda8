"""Which metrics the events of a spec become: names, kinds, units, labels. Pure; nothing is counted here.

    event                   counter  PREFIX_EVENT_total
                            gauge    PREFIX_EVENT_last_timestamp_seconds
    duration_ms             histogram, in seconds
    count                   histogram; its _sum is the total
    bucket                  histogram of the declared edges; no _sum, for the values themselves are not recorded
    number                  gauge, the latest value
    bool                    counter of the events in which it was true
    enum                    label of all of them
    a property that the destination lists in ``labels``: a label, too

What has any other type, or is a list, or is masked, becomes nothing: its values have no bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Literal, NamedTuple

from cmdorc_telemetry.spec import Property, TelemetrySpec, bucket_labels
from cmdorc_telemetry.spec.metrics import metric_of
from cmdorc_telemetry.spec.model import Event
from cmdorc_telemetry.spec.versions import order

Kind = Literal["counter", "histogram", "gauge"]

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds for durations, where the destination says nothing else: from a quick check to a long build."""
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LABEL_TYPES = ("string", "version", "hash", "uuid")
_SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    "counter": ("_total", "_created"),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
    "gauge": ("",),
}


class Family(NamedTuple):
    """One metric, whatever its labels."""

    name: str
    """As in the exposition format, but for the suffixes; a counter's is without ``_total``."""
    kind: Kind
    help: str
    edges: tuple[float, ...] = ()
    """Upper bounds of a histogram, the infinite one excepted."""


class Reading(NamedTuple):
    """How a property of an event becomes a sample of a family."""

    prop: str
    family: Family
    per: int = 1
    """How many of its unit make one of the family's."""
    ranges: Mapping[str, float] = {}
    """For a property of type bucket: the name of the range → the upper bound that stands for it."""


class EventMetrics(NamedTuple):
    """All that events of one kind become."""

    total: Family
    last: Family
    readings: tuple[Reading, ...]
    enums: Mapping[str, tuple[str, tuple[str, ...]]]
    """Property → its label, and the values that this can have."""
    free: Mapping[str, str]
    """Property with values that nobody declared → its label."""

    def reading(self, prop: str) -> Reading | None:
        """How ``prop`` is read; None where it is not."""
        return next((each for each in self.readings if each.prop == prop), None)


EVENTS = Family("cmdorc_telemetry_events", "counter", "Events that were counted")
DROPPED = Family("cmdorc_telemetry_dropped", "counter", "Events that were lost before they could be counted")
INFO = Family("cmdorc_telemetry_info", "gauge", "What recorded the latest event")


class Catalogue:
    """The metrics of a set of specs."""

    def __init__(
        self, specs: Iterable[TelemetrySpec], labels: Iterable[str] = (), seconds: Iterable[float] = SECONDS
    ) -> None:
        """``labels``: properties without a declared set of values that become labels; ``seconds``: upper bounds.

        Of several versions of a spec, and of an event, the latest says what events become.
        """
        self._labels, self._seconds = frozenset(labels), tuple(seconds)
        self._taken = {series for family in (EVENTS, DROPPED, INFO) for series in _series(family.name, family.kind)}
        self._events: dict[tuple[str, str], EventMetrics] = {}
        latest: dict[tuple[str, str], EventMetrics] = {}
        for spec in sorted(specs, key=lambda spec: order(spec.meta.version), reverse=True):
            for name in dict.fromkeys(event.name for event in spec.events):
                event, key = spec.event(name), (spec.meta.name, name)
                assert event is not None
                if key not in latest:
                    latest[key] = self._metrics(spec, event)
                self._events[spec.ref, name] = latest[key]

    def find(self, spec: str, event: str) -> EventMetrics | None:
        """What events of that name become; ``spec`` is what bodies call it, such as ``cmdorc.core@1``."""
        return self._events.get((spec, event))

    def _metrics(self, spec: TelemetrySpec, event: Event) -> EventMetrics:
        base = f"{_begun(_word(spec.meta.domain or spec.meta.name))}_{_word(event.name)}"
        what = event.semantics.what
        plain = {name: prop for name, prop in event.properties.items()
                 if prop.max_items is None and not event.masks(name)}  # fmt: skip
        enums = [name for name, prop in plain.items() if prop.type == "enum"]
        free = [name for name, prop in plain.items() if name in self._labels and prop.type in _LABEL_TYPES]
        label = _label_names((*enums, *free))
        return EventMetrics(
            total=self._family(base, "counter", what),
            last=self._family(f"{base}_last_timestamp_seconds", "gauge", f"When last: {what}"),
            readings=tuple(self._readings(base, event, plain)),
            enums={name: (label[name], plain[name].members) for name in enums},
            free={name: label[name] for name in free},
        )  # fmt: skip

    def _readings(self, base: str, event: Event, properties: Mapping[str, Property]) -> Iterator[Reading]:
        for name, prop in properties.items():
            word, per = _unit(_word(name), prop)
            told = f"{prop.description or f'{name} of {event.name}'}{' (here in seconds)' if per > 1 else ''}"
            metric = f"{base}_{word}"
            match prop.type:
                case "bool":
                    yield Reading(name, self._family(metric, "counter", f"How often it held: {told}"))
                case "number":
                    yield Reading(name, self._family(metric, "gauge", f"The latest: {told}"), per)
                case "duration_ms" | "count":
                    usual = self._seconds if prop.type == "duration_ms" else _COUNTS
                    edges = _within(prop, usual, per) | {each / per for each in _thresholds(event, name)}
                    yield Reading(name, self._family(metric, "histogram", told, sorted(edges)), per)
                case "bucket":
                    bounds = [edge / per for edge in prop.edges]
                    ranges = dict(zip(bucket_labels(prop.edges), (*bounds, inf), strict=True))
                    yield Reading(name, self._family(metric, "histogram", told, bounds), per, ranges)
                case _:
                    continue

    def _family(self, wanted: str, kind: Kind, told: str, edges: Iterable[float] = ()) -> Family:
        """A family of that name, or with a number behind it where some of its series would be another family's."""
        name, number = wanted, 1
        while not self._taken.isdisjoint(_series(name, kind)):
            number += 1
            name = f"{wanted}_{number}"
        self._taken |= _series(name, kind)
        return Family(name, kind, told, tuple(edges))


def _series(name: str, kind: Kind) -> set[str]:
    return {name + suffix for suffix in _SUFFIXES[kind]}


def _label_names(properties: Iterable[str]) -> dict[str, str]:
    """The labels that properties of one event become, each another one. ``le`` is Prometheus's own."""
    names: dict[str, str] = {}
    for prop in properties:
        name = word = _begun(_word(prop))
        number = 1
        while name == "le" or name in names.values():
            number += 1
            name = f"{word}_{number}"
        names[prop] = name
    return names


def _word(name: str) -> str:
    """A name as metrics are called: lower case, words joined by one underscore."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.sub(r"[^a-z0-9]+", "_", apart).strip("_") or "unnamed"


def _begun(word: str) -> str:
    """``word`` with no digit in front, which no metric and no label has."""
    return f"_{word}" if word[0].isdigit() else word


def _unit(word: str, prop: Property) -> tuple[str, int]:
    """The name with its base unit, and how many of the property's unit make one of these."""
    stem, _, unit = word.rpartition("_")
    if prop.type == "bool" or (unit not in ("ms", "s") and prop.type != "duration_ms"):
        return word, 1
    per = 1000 if unit == "ms" or prop.type == "duration_ms" else 1
    return f"{stem if unit in ('ms', 's') and stem else word}_seconds", per


def _within(prop: Property, usual: Iterable[float], per: int) -> set[float]:
    """The usual bounds as far as values, as they are declared, can lie on both of their sides."""
    low, high = (prop.min or 0) / per, inf if prop.max is None else prop.max / per
    return {edge for edge in usual if low <= edge < high} or {high if high < inf else low}


def _thresholds(event: Event, name: str) -> Iterator[float]:
    """The thresholds of a property: bounds, so that what lies beyond can be counted."""
    for each in event.anomaly_detection.thresholds if event.anomaly_detection else ():
        metric = metric_of(event, each.metric)
        if metric is not None and metric.property == name:
            yield from (bound for bound in (each.min, each.max) if bound is not None)
