"""What the instruments of a spec are called in OpenTelemetry: names, units, attributes. Pure.

    event         counter, DOMAIN.EVENT.count
    a property    counter, histogram or gauge, DOMAIN.EVENT.PROPERTY: without its unit, which is said apart

What becomes an instrument, and of which kind, is for ``cmdorc_telemetry.spec.instruments`` to say. The events that
traces are made of become the instruments of OpenTelemetry's conventions for CI/CD, and no other: their runs are
counted as events of the core.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cmdorc_telemetry.spec import TelemetrySpec
from cmdorc_telemetry.spec.instruments import (
    SECONDS,
    EventMetrics,
    Family,
    Reading,
    enums,
    free,
    instruments,
    of_each,
    word,
)
from cmdorc_telemetry.spec.model import Event

from .fields import TRACES, attribute

CHAIN_DURATION = Family("cicd.pipeline.run.duration", "histogram", "How long chains of triggers took", "s")
RUN_ERRORS = Family("cicd.pipeline.run.errors", "counter", "Runs of chains that failed", "{error}")


class Catalogue:
    """The instruments of a set of specs."""

    def __init__(
        self, specs: Iterable[TelemetrySpec], labels: Iterable[str] = (), seconds: Iterable[float] = SECONDS
    ) -> None:
        """``labels``: properties without a declared set of values that become attributes; ``seconds``: upper bounds."""
        self._labels, self._seconds = frozenset(labels), tuple(seconds)
        self.chain_duration = CHAIN_DURATION._replace(edges=self._seconds)
        self._taken = {CHAIN_DURATION.name, RUN_ERRORS.name}
        self._events = of_each([spec for spec in specs if spec.meta.name != TRACES], self._metrics)

    def find(self, spec: str, event: str) -> EventMetrics | None:
        """What events of that name become; ``spec`` is what bodies call it, such as ``cmdorc.core@1``."""
        return self._events.get((spec, event))

    def _metrics(self, spec: TelemetrySpec, event: Event) -> EventMetrics:
        domain = word(spec.meta.name.partition(".")[0])
        base = word(event.name) if event.name.startswith(f"{domain}.") else f"{domain}.{word(event.name)}"
        return EventMetrics(
            total=Family(self._name(f"{base}.count"), "counter", event.semantics.what, "{event}"),
            readings=tuple(self._readings(base, event)),
            enums={name: (attribute(spec.meta.name, event.name, name), members)
                   for name, members in enums(event).items()},
            free={name: attribute(spec.meta.name, event.name, name) for name in free(event, self._labels)},
        )  # fmt: skip

    def _readings(self, base: str, event: Event) -> Iterator[Reading]:
        for each in instruments(event, self._seconds):
            name = self._name(f"{base}.{each.word}")
            if each.kind == "counter":
                yield each.called(name, f"How often it held: {each.about}", "{event}")
            else:
                yield each.called(name, each.about, each.unit or "1")

    def _name(self, wanted: str) -> str:
        """That name, or with a number behind it where another one has it."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name
