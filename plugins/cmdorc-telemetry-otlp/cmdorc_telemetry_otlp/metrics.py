"""Which instruments the events of a spec become: names, kinds, units, attributes. Pure; nothing is counted here.

    event                   counter    DOMAIN.EVENT.count
    duration_ms             histogram  DOMAIN.EVENT.duration, in seconds
    count                   histogram; its sum is the total
    bucket                  histogram of the declared edges; no sum, for the values themselves are not recorded
    number                  gauge, the latest value
    bool                    counter of the events in which it was true
    enum                    attribute of all of them
    a property that the destination lists in ``labels``: an attribute, too

What has any other type, or is a list, or is masked, becomes nothing: its values have no bound. The events that traces
are made of become the instruments of OpenTelemetry's conventions for CI/CD, and no other: their runs are counted as
events of the core.
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

from .fields import TRACES

Kind = Literal["sum", "histogram", "gauge"]

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds for durations, where the destination says nothing else: from a quick check to a long build."""
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LABEL_TYPES = ("string", "version", "hash", "uuid")


class Family(NamedTuple):
    """One instrument, whatever its attributes."""

    name: str
    kind: Kind
    unit: str
    help: str
    edges: tuple[float, ...] = ()
    """Upper bounds of a histogram, the infinite one excepted."""


class Reading(NamedTuple):
    """How a property of an event becomes a point of a family."""

    prop: str
    family: Family
    per: int = 1
    """How many of its unit make one of the family's."""
    ranges: Mapping[str, float] = {}
    """For a property of type bucket: the name of the range → the upper bound that stands for it."""


class EventMetrics(NamedTuple):
    """All that events of one kind become."""

    total: Family
    readings: tuple[Reading, ...]
    enums: Mapping[str, tuple[str, ...]]
    """Property → the values that it can have; others are ``other``."""
    free: frozenset[str]
    """Properties with values that nobody declared."""


CHAIN_DURATION = Family("cicd.pipeline.run.duration", "histogram", "s", "How long chains of triggers took")
RUN_ERRORS = Family("cicd.pipeline.run.errors", "sum", "{error}", "Runs of chains that failed")


class Catalogue:
    """The instruments of a set of specs."""

    def __init__(
        self, specs: Iterable[TelemetrySpec], labels: Iterable[str] = (), seconds: Iterable[float] = SECONDS
    ) -> None:
        """``labels``: properties without a declared set of values that become attributes; ``seconds``: upper bounds.

        Of several versions of a spec, and of an event, the latest says what events become.
        """
        self._labels, self._seconds = frozenset(labels), tuple(seconds)
        self.chain_duration = CHAIN_DURATION._replace(edges=self._seconds)
        self._taken = {CHAIN_DURATION.name, RUN_ERRORS.name}
        self._events: dict[tuple[str, str], EventMetrics] = {}
        latest: dict[tuple[str, str], EventMetrics] = {}
        for spec in sorted(specs, key=lambda spec: order(spec.meta.version), reverse=True):
            if spec.meta.name == TRACES:
                continue
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
        domain = _word(spec.meta.name.partition(".")[0])
        base = _word(event.name) if event.name.startswith(f"{domain}.") else f"{domain}.{_word(event.name)}"
        plain = {name: prop for name, prop in event.properties.items()
                 if prop.max_items is None and not event.masks(name)}  # fmt: skip
        return EventMetrics(
            total=self._family(f"{base}.count", "sum", "{event}", event.semantics.what),
            readings=tuple(self._readings(base, event, plain)),
            enums={name: prop.members for name, prop in plain.items() if prop.type == "enum"},
            free=frozenset(name for name, prop in plain.items() if name in self._labels and prop.type in _LABEL_TYPES),
        )

    def _readings(self, base: str, event: Event, properties: Mapping[str, Property]) -> Iterator[Reading]:
        for name, prop in properties.items():
            word, unit, per = _unit(name, prop)
            told = prop.description or f"{name} of {event.name}"
            metric = f"{base}.{word}"
            match prop.type:
                case "bool":
                    yield Reading(name, self._family(metric, "sum", "{event}", f"How often it held: {told}"))
                case "number":
                    yield Reading(name, self._family(metric, "gauge", unit, told), per)
                case "duration_ms" | "count":
                    usual = self._seconds if prop.type == "duration_ms" else _COUNTS
                    edges = _within(prop, usual, per) | {each / per for each in _thresholds(event, name)}
                    yield Reading(name, self._family(metric, "histogram", unit, told, sorted(edges)), per)
                case "bucket":
                    bounds = [edge / per for edge in prop.edges]
                    ranges = dict(zip(bucket_labels(prop.edges), (*bounds, inf), strict=True))
                    yield Reading(name, self._family(metric, "histogram", unit, told, bounds), per, ranges)
                case _:
                    continue

    def _family(self, wanted: str, kind: Kind, unit: str, told: str, edges: Iterable[float] = ()) -> Family:
        """A family of that name, or with a number behind it where another one has it."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return Family(name, kind, unit, told, tuple(edges))


def _word(name: str) -> str:
    """A name as instruments are called: lower case, words joined by one underscore, dots kept."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.sub(r"[^a-z0-9.]+", "_", apart).strip("_.") or "unnamed"


def _unit(name: str, prop: Property) -> tuple[str, str, int]:
    """The name without its unit, that unit, and how many of the property's make one of these."""
    word = _word(name)
    stem, _, ending = word.rpartition("_")
    if prop.type == "bool" or (ending not in ("ms", "s") and prop.type != "duration_ms"):
        return word, "1", 1
    per = 1000 if ending == "ms" or prop.type == "duration_ms" else 1
    return (stem if ending in ("ms", "s") and stem else word), "s", per


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
