"""Judges the windows of all groups against the thresholds of the specs, in the events' own time.

An event moves that time on; now and then, and whenever no more events wait, every group is judged. So the same events
give the same alerts whenever they are looked at, also where many come at once that were recorded long before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import inf
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, field

from cmdorc_telemetry import clock
from cmdorc_telemetry.detector import STATE_BYTES, Detector
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
"""What is further ahead of the clock than this, or than a window, was recorded while the clock was wrong."""
_LONGEST_NAME = 200
_REST = 1 / 4
"""Of a window: so long a value has to be back inside until an episode is over."""


class _Watched(NamedTuple):
    """One kind of event that has thresholds."""

    event: Event
    rules: tuple[Rule, ...]
    numbers: frozenset[str]
    sketched: frozenset[str]
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
        self._begin(_State(length=self._length))

    def _begin(self, state: _State) -> None:
        """Go on from what was learnt, of which nothing is judged yet."""
        self._state, self._next_look = state, 0.0
        self._quiet: set[tuple[str, str, str | None]] = set()
        """The groups that are as they were when they were judged last: spec, event, name."""

    # -- what is watched ---------------------------------------------------------------------------------------------

    def watch(self, specs: Sequence[TelemetrySpec]) -> None:
        """Watch the events of ``specs`` that have thresholds. Raises ConfigError for a group that cannot be."""
        on = [spec for spec in specs if spec.config.anomaly_detection]
        for spec in on:
            latest = {event.name: event for event in sorted(spec.events, key=lambda event: order(event.version))}
            for event in latest.values():
                rules = tuple(rules_of(event))
                if rules and event.anomaly_detection is not None:
                    self._watched[spec.ref, event.name] = _Watched(
                        event, rules, _properties(rules), _properties(rules, "p95"), outcomes_of(event),
                        self._group_by(event), event.anomaly_detection.actions,
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
        spec = str(payload.get("spec"))
        watched = self._watched.get((spec, event))
        at = self._moment(payload)
        if watched is None or at is None or at <= self._state.now - self._length:
            return
        groups = self._state.groups.setdefault(spec, {}).setdefault(event, Groups(by=watched.group_by))
        seen = Observation(at, _numbers(watched, payload), _failed(watched, payload), watched.sketched)
        group = _group(watched, payload)
        groups.learn(group, seen, self._length, self.settings.groups)
        self._quiet.discard((spec, event, group))

    def check(self, now: float) -> Iterable[Anomaly]:
        """What all events so far give rise to."""
        return self._look()

    def _moment(self, payload: Mapping[str, Any]) -> float | None:
        """When an event was; None where nobody can tell."""
        try:
            at = datetime.fromisoformat(str(payload["timestamp"]).replace("Z", "+00:00")).timestamp()
        except (KeyError, ValueError, OverflowError):
            return None
        latest = self._wall() + min(_AHEAD_SECONDS, self._length)
        if self._state.now > latest:  # it was the clock that was wrong: what was learnt then stands in the way
            self._begin(_State(length=self._length))
        return at if at <= latest else None

    # -- judging -----------------------------------------------------------------------------------------------------

    def _look(self) -> list[Anomaly]:
        """Judge every group, as of now, that is not as it was."""
        now = self._state.now
        self._next_look = now + self._interval
        found: list[Anomaly] = []
        quiet = set()
        for spec, name, groups in self._learnt():
            changed = groups.trim(now, self._length)
            watched = self._watched.get((spec, name))
            if watched is None:  # who knows of it may come later
                continue
            for group_name, group in groups.all():
                key, whole = (spec, name, group_name), is_whole(group, now, self._length)
                if key not in self._quiet or group_name in changed:
                    found += self._judge(spec, watched, group_name, group, whole=whole)
                ending = any(back < inf for back in group.episodes.values())
                if not ending and (whole or not any(rule.awaits for rule in watched.rules)):
                    quiet.add(key)
        self._quiet = quiet
        return found

    def _learnt(self) -> Iterator[tuple[str, str, Groups]]:
        """The groups of every event of every spec."""
        for spec, events in self._state.groups.items():
            for name, groups in events.items():
                yield spec, name, groups

    def _judge(
        self, spec: str, watched: _Watched, name: str | None, group: Group, *, whole: bool
    ) -> Iterator[Anomaly]:  # fmt: skip
        episodes = {}
        for rule in watched.rules:
            seen = rule.statistic(group.window)
            verdict = judged(rule, seen, group.episodes.get(rule.key), now=self._state.now, whole=whole,
                             margin=self.settings.margin, rest=self._length * _REST)  # fmt: skip
            if verdict.back is not None:
                episodes[rule.key] = verdict.back
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
        """Windows and episodes. Where that is more than may be kept, the groups that were not seen for longest go."""
        state = msgspec.msgpack.encode(self._state)
        while len(state) > STATE_BYTES and any(groups.named for _, _, groups in self._learnt()):
            for _, _, groups in self._learnt():
                groups.make_room(len(groups.named) // 2 + 1)
            state = msgspec.msgpack.encode(self._state)
        return state

    def restore(self, state: bytes) -> None:
        """Go on with windows of the same length; others are of no use. Raises ValueError for what is no state."""
        restored = msgspec.msgpack.decode(state, type=_State)
        if restored.version != _VERSION:
            raise ValueError(f"it is of version {restored.version}")
        if restored.length == self._length:
            self._begin(restored)
            for spec, name, groups in self._learnt():
                watched = self._watched.get((spec, name))
                if watched is not None and watched.group_by != groups.by:
                    restored.groups[spec][name] = Groups(by=watched.group_by)


def _properties(rules: Iterable[Rule], *statistics: str) -> frozenset[str]:
    """The properties of which one of these statistics is judged; of which any is, where none is given."""
    return frozenset(rule.metric.property for rule in rules if rule.metric.property is not None
                     and (not statistics or rule.metric.statistic in statistics))  # fmt: skip


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
