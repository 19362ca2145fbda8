"""What the instruments of a spec are called in Prometheus: families, their series, labels. Pure.

    event                   counter  PREFIX_EVENT_total
                            gauge    PREFIX_EVENT_last_timestamp_seconds
    bool                    counter  PREFIX_EVENT_PROPERTY_total
    a duration              histogram or gauge, PREFIX_EVENT_PROPERTY_seconds
    another property        histogram or gauge, PREFIX_EVENT_PROPERTY

What becomes an instrument, and of which kind, is for ``cmdorc_telemetry.spec.instruments`` to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from cmdorc_telemetry.spec import TelemetrySpec
from cmdorc_telemetry.spec.instruments import (
    SECONDS,
    EventMetrics,
    Family,
    Kind,
    Reading,
    enums,
    free,
    instruments,
    of_each,
    word,
)
from cmdorc_telemetry.spec.model import Event

_SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    "counter": ("_total", "_created"),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
    "gauge": ("",),
}
_PROMETHEUS_OWN = ("le", "job", "instance", "alertname")
"""Labels that Prometheus gives: of histograms, of what it scrapes, of alerts."""
EVENTS = Family("cmdorc_telemetry_events", "counter", "Events that were counted")
DROPPED = Family("cmdorc_telemetry_dropped", "counter", "Events that were lost before they could be counted")
INFO = Family("cmdorc_telemetry_info", "gauge", "What recorded the latest event")


class Catalogue:
    """The metrics of a set of specs."""

    def __init__(
        self, specs: Iterable[TelemetrySpec], labels: Iterable[str] = (), seconds: Iterable[float] = SECONDS
    ) -> None:
        """``labels``: properties without a declared set of values that become labels; ``seconds``: upper bounds."""
        self._labels, self._seconds = frozenset(labels), tuple(seconds)
        self._taken = {series for family in (EVENTS, DROPPED, INFO) for series in _series(family.name, family.kind)}
        self._events = of_each(specs, self._metrics)

    def find(self, spec: str, event: str) -> EventMetrics | None:
        """What events of that name become; ``spec`` is what bodies call it, such as ``cmdorc.core@1``."""
        return self._events.get((spec, event))

    def _metrics(self, spec: TelemetrySpec, event: Event) -> EventMetrics:
        base = f"{_begun(_word(spec.meta.domain or spec.meta.name))}_{_word(event.name)}"
        what, declared, listed = event.semantics.what, enums(event), free(event, self._labels)
        label = _label_names((*declared, *listed))
        return EventMetrics(
            total=Family(self._name(base, "counter"), "counter", what),
            last=Family(self._name(f"{base}_last_timestamp_seconds", "gauge"), "gauge", f"When last: {what}"),
            readings=tuple(self._readings(base, event)),
            enums={name: (label[name], members) for name, members in declared.items()},
            free={name: label[name] for name in listed},
        )

    def _readings(self, base: str, event: Event) -> Iterator[Reading]:
        for each in instruments(event, self._seconds):
            name = self._name(f"{base}_{_word(each.word)}{'_seconds' if each.unit else ''}", each.kind)
            told = f"{each.about}{' (here in seconds)' if each.per > 1 else ''}"
            yield each.called(
                name, {"counter": "How often it held: ", "gauge": "The latest: "}.get(each.kind, "") + told
            )

    def _name(self, wanted: str, kind: Kind) -> str:
        """That name, or with a number behind it where some of its series would be another family's."""
        name, number = wanted, 1
        while not self._taken.isdisjoint(_series(name, kind)):
            number += 1
            name = f"{wanted}_{number}"
        self._taken |= _series(name, kind)
        return name


def _series(name: str, kind: Kind) -> set[str]:
    return {name + suffix for suffix in _SUFFIXES[kind]}


def _label_names(properties: Iterable[str]) -> dict[str, str]:
    """The labels that properties of one event become, each another one."""
    names: dict[str, str] = {}
    for prop in properties:
        name = base = _begun(_word(prop))
        number = 1
        while name in _PROMETHEUS_OWN or name in names.values():
            number += 1
            name = f"{base}_{number}"
        names[prop] = name
    return names


def _word(name: str) -> str:
    """A name as metrics are called: lower case, words joined by one underscore."""
    return re.sub(r"[._]+", "_", word(name))


def _begun(name: str) -> str:
    """``name`` with no digit in front, which no metric and no label has."""
    return f"_{name}" if name[0].isdigit() else name
