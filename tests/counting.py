"""A tally of runs, for tests of what counts."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from cmdorc_telemetry.spec.instruments import EventMetrics, Family, Reading
from cmdorc_telemetry.tally import Tally, body_of, seconds_of, written
from cmdorc_telemetry.types import BatchEvent

RUNS = Family("runs", "counter", "Runs")
TOOK = Family("took", "histogram", "How long", "s", (1.0, 5.0))
LOAD = Family("load", "gauge", "How much")


class Runs(Tally[BatchEvent]):
    """Counts runs by who did it and by their name; the body may hold how long it took."""

    took = TOOK

    def count(self, event: BatchEvent) -> None:
        body = body_of(event)
        known = EventMetrics(RUNS, (Reading("ms", self.took, 1000), Reading("load", LOAD)),
                             {"state": ("state", ("ok", "bad"))}, {"name": "name"})  # fmt: skip
        labels, source = written(self.labels_of(known, body)), str(body.get("source", ""))
        self.add(known.total, labels, source=source)
        for reading in known.readings:
            self.read(reading, labels, body.get(reading.prop), seconds_of(body.get("timestamp")) or 0.0, source)


def event(event_id: str | None = None, **body: Any) -> BatchEvent:
    return BatchEvent(uuid.uuid4().hex if event_id is None else event_id, "run", msgspec.json.encode(body))
