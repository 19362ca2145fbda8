"""What a batch adds to the metrics. Pure: what is there already, and which labels there is room for, is not known."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from cmdorc_telemetry import tally
from cmdorc_telemetry.spec.instruments import EventMetrics
from cmdorc_telemetry.tally import Label, Sample, body_of, seconds_of, written
from cmdorc_telemetry.types import BatchEvent

from .metrics import DROPPED, EVENTS, INFO, Catalogue

_MOST_FORESEEN = 32
"""How many series are begun at zero with one that is new: more enums than that would make series that nobody needs."""
_INFO = ("app_name", "app_version", "cmdorc_version", "python_version", "os", "arch")


class Tally(tally.Tally[BatchEvent]):
    """Counts events."""

    def __init__(self, catalogue: Catalogue, label: Label = lambda name, value: value) -> None:
        super().__init__(label)
        self._catalogue = catalogue
        self._info: dict[str, str] | None = None
        """What recorded the latest event; None where there was none."""

    def count(self, event: BatchEvent) -> None:
        """Count one event. Of its body, what does not fit its spec is left out."""
        body = body_of(event)
        spec, at = str(body.get("spec", "")), seconds_of(body.get("timestamp"))
        self.add(EVENTS, written({"spec": spec, "event": event.event}))
        self._info = {name: body[name] for name in _INFO if isinstance(body.get(name), str)}
        known = self._catalogue.find(spec, event.event)
        if known is None:
            return
        named = self.labels_of(known, body)
        labels = written(named)
        if Sample("", known.total.name, labels) not in self.added:
            self._foresee(known, named)
        self.add(known.total, labels)
        if at is not None and known.last is not None:
            self.set(known.last, labels, at, at)
        for reading in known.readings:
            self.read(reading, labels, body.get(reading.prop), at or 0.0)

    def close(self, drops: Mapping[str, int], epoch: str = "") -> None:
        """Say what recorded the latest event, and what was lost before: by reason, cumulative within the epoch."""
        if self._info is not None:
            self.alone.add(INFO.name)
            self.set(INFO, written(self._info), 1, 0)
        for reason, count in drops.items():
            self.set(DROPPED, written({"reason": reason}), count, 0, epoch)

    def _foresee(self, known: EventMetrics, labels: Mapping[str, str]) -> None:
        """Begin at zero what may come beside a new series: Prometheus sees no growth in what begins with one."""
        members = [[(name, value) for value in values] for name, values in known.enums.values() if name in labels]
        others = list(product(*members)) if members else []
        if len(others) <= _MOST_FORESEEN:
            for each in others:
                self.add(known.total, written({**labels, **dict(each)}), 0)
