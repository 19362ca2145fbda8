"""Judges the windows of all groups against the thresholds of the specs, in the events' own time.

An event moves that time on; now and then, and whenever no more events wait, every group is judged. So the same events
give the same alerts whenever they are looked at, also where many come at once that were recorded long before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, field

from cmdorc_telemetry import clock
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.errors import ConfigError, nearest
from cmdorc_telemetry.spec import Event, TelemetrySpec
from cmdorc_telemetry.spec.metrics import Outcomes, outcomes_of
from cmdorc_telemetry.spec.versions import order
from cmdorc_telemetry.types import Anomaly

from .groups import Group, Groups, is_whole
from .judging import Rule, judged, rules_of
from .windows import Observation
from .wording import message

_VERSION = 1
_AHEAD_SECONDS = 3600.0
"""What is further ahead of the clock than this was recorded while the clock was wrong."""
_LONGEST_NAME = 200


class _Watched(NamedTuple):
    """One kind of event that has thresholds."""

    event: Event
    rules: tuple[Rule, ...]
    numbers: tuple[str, ...]
    outcomes: Outcomes | None
    group_by: str
    actions: tuple[str, ...]


class _State(Struct, array_like=True):
    """What survives the process."""

    version: int = _VERSION
    length: float = 0.0
    """Of the windows: those of another length are of no use."""
    now: float = 0.0
    groups: dict[str, dict[str, Groups]] = field(default_factory=dict)
    """Spec → event → groups."""


class ThresholdDetector(Detector):
    """The thresholds of the specs, judged on windowed statistics."""

    name = "anomaly"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of ``[telemetry.settings.anomaly]``."""

        window_minutes: float = 60
        """Statistics are those of the events of so long."""
        group_by: dict[str, str] = field(default_factory=dict)
        """Event → the property by whose values its events are judged apart; empty for all of them together. Where an
        event is not named: ``command_name``, if it has that."""
        groups: int = 100
        """How many groups of one event are remembered; of more, those that were not seen for longest go."""
        margin: float = 0.1
        """An episode is over when the value is back inside its bound by this share of the bound."""

        def __post_init__(self) -> None:
            if not 1 <= self.window_minutes <= 60 * 24 * 31:
                raise ValueError(f"window_minutes: found {self.window_minutes:g}; expected 1 to 44640")
            if not 1 <= self.groups <= 500:
                raise ValueError(f"groups: found {self.groups}; expected 1 to 500")
            if not 0 <= self.margin < 1:
                raise ValueError(f"margin: found {self.margin:g}; expected 0 or more, and less than 1")

    settings: Settings

    def __init__(self, settings: Settings | None = None, wall: Callable[[], float] = clock.wall) -> None:
        super().__init__(settings)
        self._wall = wall
        self._length = self.settings.window_minutes * 60
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._interval = 60.0
        self._next_look = 0.0
        self._state = _State(length=self._length)

    # -- what is watched ---------------------------------------------------------------------------------------------

    def watch(self, specs: Sequence[TelemetrySpec]) -> None:
        """Watch the events of ``specs`` that have thresholds. Raises ConfigError for a group that cannot be."""
        on = [spec for spec in specs if spec.config.anomaly_detection]
        for spec in on:
            latest = {event.name: event for event in sorted(spec.events, key=lambda event: order(event.version))}
            for event in latest.values():
                rules = tuple(rules_of(event))
                if rules and event.anomaly_detection is not None:
                    numbers = {rule.metric.property for rule in rules if rule.metric.property is not None}
                    self._watched[spec.ref, event.name] = _Watched(
                        event, rules, tuple(sorted(numbers)), outcomes_of(event), self._group_by(event),
                        event.anomaly_detection.actions,
                    )  # fmt: skip
        self._interval = min((spec.config.check_interval_ms / 1000 for spec in on), default=60.0)

    def _group_by(self, event: Event) -> str:
        asked = self.settings.group_by.get(event.name)
        if asked is None:
            return "command_name" if "command_name" in event.properties else ""
        if asked and asked not in event.properties:
            raise ConfigError(
                "", f"telemetry.settings.anomaly.group_by.{event.name}", f"found {asked!r}",
                "a property of the event, or nothing", nearest=nearest(asked, event.properties),
            )  # fmt: skip
        return asked

    # -- the stream --------------------------------------------------------------------------------------------------

    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        """What the events before this one give rise to, where time has moved on far enough since the last look."""
        at = self._moment(payload)
        if at is None or at <= self._state.now:
            return ()
        self._state.now = at
        return self._look() if at >= self._next_look else ()

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        """Take an event into the window of its group."""
        watched = self._watched.get((str(payload.get("spec")), event))
        at = self._moment(payload)
        if watched is None or at is None or at <= self._state.now - self._length:
            return
        groups = self._state.groups.setdefault(str(payload["spec"]), {}).setdefault(event, Groups())
        seen = Observation(at, _numbers(watched, payload), _failed(watched, payload))
        groups.learn(_group(watched, payload), seen, self._length, self.settings.groups)

    def check(self, now: float) -> Iterable[Anomaly]:
        """What all events so far give rise to."""
        return self._look()

    def _moment(self, payload: Mapping[str, Any]) -> float | None:
        """When an event was; None where nobody can tell."""
        try:
            at = datetime.fromisoformat(str(payload["timestamp"]).replace("Z", "+00:00")).timestamp()
        except (KeyError, ValueError, OverflowError):
            return None
        latest = self._wall() + _AHEAD_SECONDS
        if self._state.now > latest:  # it was the clock that was wrong: what was learnt then stands in the way
            self._state = _State(length=self._length)
            self._next_look = 0.0
        return at if at <= latest else None

    # -- judging -----------------------------------------------------------------------------------------------------

    def _look(self) -> list[Anomaly]:
        """Judge every group, as of now."""
        now = self._state.now
        self._next_look = now + self._interval
        found: list[Anomaly] = []
        for (spec, name), watched in self._watched.items():
            groups = self._state.groups.get(spec, {}).get(name)
            if groups is not None:
                groups.trim(now, self._length)
                for group_name, group in groups.all():
                    found += self._judge(spec, watched, group_name, group)
        return found

    def _judge(self, spec: str, watched: _Watched, name: str | None, group: Group) -> Iterator[Anomaly]:
        whole = is_whole(group, self._state.now, self._length)
        episodes = set()
        for rule in watched.rules:
            seen = rule.statistic(group.window)
            verdict = judged(rule, seen, open_before=rule.key in group.episodes, margin=self.settings.margin,
                             whole=whole)  # fmt: skip
            if verdict.open:
                episodes.add(rule.key)
            if verdict.begins and seen.value is not None:
                yield self._anomaly(spec, watched, rule, seen.value, seen.sample, name)
        group.episodes = episodes

    def _anomaly(
        self, spec: str, watched: _Watched, rule: Rule, value: float, sample: int, group: str | None
    ) -> Anomaly:  # fmt: skip
        text = message(watched.event, rule, value, sample, group, self.settings.window_minutes)
        return Anomaly(detector="anomaly", spec=spec, event=watched.event.name, metric=rule.text, kind=rule.kind,
                       value=value, threshold=rule.bound, sample_count=sample, group=group, message=text,
                       group_by=watched.group_by if group is not None else "",
                       actions=watched.actions)  # fmt: skip

    # -- what survives -----------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Windows and episodes."""
        return msgspec.msgpack.encode(self._state)

    def restore(self, state: bytes) -> None:
        """Go on with windows of the same length; others are of no use. Raises ValueError for what is no state."""
        restored = msgspec.msgpack.decode(state, type=_State)
        if restored.version != _VERSION:
            raise ValueError(f"it is of version {restored.version}")
        if restored.length == self._length:
            self._state = restored


def _numbers(watched: _Watched, payload: Mapping[str, Any]) -> dict[str, float]:
    values = ((name, payload.get(name)) for name in watched.numbers)
    return {name: float(value) for name, value in values
            if isinstance(value, int | float) and not isinstance(value, bool)}  # fmt: skip


def _failed(watched: _Watched, payload: Mapping[str, Any]) -> bool | None:
    if watched.outcomes is None:
        return None
    value = payload.get(watched.outcomes.property)
    if not isinstance(value, str):  # as another version of the event may have it
        return None
    if value in watched.outcomes.failed:
        return True
    return False if value in watched.outcomes.succeeded else None


def _group(watched: _Watched, payload: Mapping[str, Any]) -> str | None:
    value = payload.get(watched.group_by) if watched.group_by else None
    return None if value is None else str(value)[:_LONGEST_NAME]
