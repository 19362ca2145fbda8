"""Anomalies as a spec's thresholds have them: single values of captured events, judged where they are tracked.

Statistics over a window, and alerts that wait until they last, are a detector's; it judges by the same function.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from . import clock
from .errors import told
from .forks import on_fork
from .spec import Event, Version
from .spec.model import Threshold

log = logging.getLogger("cmdorc_telemetry")

Bound = Literal["min", "max"]
MOST_EVENTS = 1000
"""So many kinds of events are counted; the one that was first is forgotten for another."""
_fields = msgspec.json.Decoder(dict[str, Any])


class Crossing(NamedTuple):
    """A value outside of the range that its metric should stay in."""

    metric: str
    value: float
    bound: Bound
    limit: float
    """What the bound is."""


class ThresholdAnomaly(NamedTuple):
    """One crossing, and the event that it was found in."""

    event: str
    version: Version
    metric: str
    value: float
    bound: Bound
    limit: float
    time: float
    """When it was judged: seconds since the epoch, UTC."""
    sample_count: int
    """How many such events the monitor had seen, this one included."""
    actions: tuple[str, ...]
    """What the spec says is to be done; ``log`` was done."""

    def __str__(self) -> str:
        return f"{self.event}: {self.metric} is {self.value:g}, {self._side}"

    @property
    def without_value(self) -> str:
        """What a log may hold, which is read by others than the value is for."""
        return f"{self.event}: {self.metric} is {self._side}"

    @property
    def _side(self) -> str:
        side = "below" if self.bound == "min" else "above"
        return f"{side} {self.limit:g} (event {self.sample_count})"


def crossings(thresholds: Iterable[Threshold], values: Mapping[str, Any]) -> Iterator[Crossing]:
    """The thresholds that an event's values cross, one after the other. Pure.

    A bound itself is not crossed. A metric that is not there, is masked or is no number is not judged; where it is a
    table, or was captured by its parts, its ``value`` is.
    """
    for each in thresholds:
        value = values.get(each.metric, values.get(f"{each.metric}.value"))
        if isinstance(value, Mapping):
            value = value.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if each.min is not None and value < each.min:
            yield Crossing(each.metric, value, "min", each.min)
        if each.max is not None and value > each.max:
            yield Crossing(each.metric, value, "max", each.max)


class TelemetryAnomalyMonitor:
    """Judges each captured event by the thresholds of its spec, and calls ``on_anomaly`` for each that is crossed.

    It is called where the event is tracked, and should return soon; what it raises is logged. Threads may share one.
    """

    def __init__(self, on_anomaly: Callable[[ThresholdAnomaly], object] | None = None) -> None:
        self._on_anomaly = on_anomaly
        self._counts: dict[tuple[str, Version], int] = {}
        self._lock = threading.RLock()  # a signal's handler may track, too
        on_fork(self)

    def forked(self) -> None:
        """A thread of the parent's may have held the lock."""
        self._lock = threading.RLock()

    def judges(self, event: Event) -> bool:
        """Whether there is anything to judge such events by."""
        rules = event.anomaly_detection
        return rules is not None and rules.enabled and bool(rules.thresholds)

    def observe(self, event: Event, values: Mapping[str, Any] | bytes) -> list[ThresholdAnomaly]:
        """Count an event, and judge its captured values, which may be JSON, once there were as many as there must be.

        Never raises.
        """
        rules = event.anomaly_detection
        if rules is None or not self.judges(event):
            return []
        count = self._counted((event.name, event.version))
        if count < rules.minimum_sample:
            return []
        captured = _fields.decode(values) if isinstance(values, bytes) else values
        now = clock.wall()
        found = [ThresholdAnomaly(event.name, event.version, *each, now, count, rules.actions)
                 for each in crossings(rules.thresholds, captured)]  # fmt: skip
        for each in found:
            self._tell(each)
        return found

    def reset(self) -> None:
        """Forget every count."""
        with self._lock:
            self._counts.clear()

    def _counted(self, kind: tuple[str, Version]) -> int:
        with self._lock:
            if kind not in self._counts and len(self._counts) >= MOST_EVENTS:
                del self._counts[next(iter(self._counts))]
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return count

    def _tell(self, anomaly: ThresholdAnomaly) -> None:
        if "log" in anomaly.actions:
            log.info("%s", anomaly.without_value)
        if self._on_anomaly is None:
            return
        try:
            self._on_anomaly(anomaly)
        except (Exception, SystemExit) as fault:
            log.warning("on_anomaly failed: %s", told(fault))
