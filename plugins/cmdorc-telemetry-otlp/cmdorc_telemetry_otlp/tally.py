"""What a batch adds to the metrics. Pure: what is there already, and which values there is room for, is not known here.

Each installation of each application is a source of its own.
"""

from __future__ import annotations

from cmdorc_telemetry import tally
from cmdorc_telemetry.tally import Label, measured, written

from .fields import ERROR, PIPELINE, RUN_RESULT, RUN_STATE, TASK_RESULT, Facts
from .metrics import RUN_ERRORS, Catalogue


class Tally(tally.Tally[Facts]):
    """Counts events."""

    def __init__(self, catalogue: Catalogue | None, label: Label = lambda name, value: value) -> None:
        """``catalogue``: None where nothing is counted."""
        super().__init__(label)
        self._catalogue = catalogue

    def count(self, event: Facts) -> None:
        """Count one event. Of its body, what does not fit its spec is left out."""
        if self._catalogue is None:
            return
        source = event.source
        if event.is_trace:
            self._conventions(self._catalogue, source, event)
        elif (known := self._catalogue.find(event.spec, event.event)) is not None:
            found = self.labels_of(known, event.body)
            if TASK_RESULT in found:
                found[TASK_RESULT] = event.result(found[TASK_RESULT])
            attributes = written(found)
            self.add(known.total, attributes, source=source)
            for reading in known.readings:
                self.read(reading, attributes, event.body.get(reading.prop), event.seconds, source)

    def _conventions(self, catalogue: Catalogue, source: str, event: Facts) -> None:
        """A chain, or a run of one, as the conventions for CI/CD have it."""
        name = event.body.get("trigger")
        attributes = {PIPELINE: self._label(PIPELINE, name)} if isinstance(name, str) and name else {}
        if event.error is not None:
            attributes[ERROR] = event.error
        duration = measured(event.body.get("duration_ms"))
        if event.event == "traces.chain_ended" and duration is not None:
            attributes |= {RUN_STATE: "executing", RUN_RESULT: event.result(str(event.body.get("outcome", "")))}
            self.observe(catalogue.chain_duration, written(attributes), duration / 1000, source)
        elif event.event == "traces.run_ended" and event.error is not None:
            self.add(RUN_ERRORS, written(attributes), source=source)
