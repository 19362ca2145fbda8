"""Settings and specs → what is done to each property of each event. Refuses what is misspelt or could never be valid.

A rule that is silently never used would be a leak: every name in the settings must be one that a spec declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cmdorc_telemetry.errors import ConfigError, nearest
from cmdorc_telemetry.spec import BASE, Event, Property, TelemetrySpec

from .operations import Operation, Refused, operation, suppressed
from .settings import DEFAULTS, Rule, Settings

_ERASURE = "a server could not find it any more when it is asked to erase this install"
_KIND = "it says what kind of event it is, and how it was shared"
_UNTOUCHED: Mapping[str, str] = {
    "anonymous_install_id": _ERASURE,
    "event": _KIND,
    "event_id": "the time in it follows 'timestamp'",
    "level": _KIND,
    "sampling_rate": _KIND,
    "spec": _KIND,
}
"""Fields that no rule can be for, and why."""


class Treatment(NamedTuple):
    """What is done to one property of one kind of event."""

    change: Operation
    rare: int | None
    many: bool
    """Whether its value is a list, whose items are treated one by one."""
    instead: str | None
    """What stands in the place of a rare value; None for nothing."""
    place: str
    """What its values are counted as: a field that every event has is the same in all of them."""


Table = Mapping[str, Mapping[str, Mapping[str, Treatment]]]
"""Spec and major version → event → property → treatment."""


class _Refusals:
    """Makes errors that name file and key."""

    def __init__(self, where: str, key: str) -> None:
        self._where, self._key = where, key

    def __call__(self, key: str, found: str, expected: str = "", close: str | None = None) -> ConfigError:
        return ConfigError(self._where, f"{self._key}.{key}", found, expected, nearest=close)


def compiled(settings: Settings, specs: Sequence[TelemetrySpec], where: str, key: str) -> Table:
    """The treatments of every event of ``specs``. ``where`` and ``key`` say where the settings stand, for errors.

    Raises ConfigError.
    """
    refuse = _Refusals(where, key)
    _check_names(settings, specs, refuse)
    general = {**DEFAULTS, **settings.fields}
    table: dict[str, dict[str, dict[str, Treatment]]] = {}
    for spec in specs:
        for event in spec.events:
            treatments = table.setdefault(spec.ref, {}).setdefault(event.name, {})
            own = dict(_own(settings, spec, event))
            for name, prop in _shared(event):
                path, rule = own.get(name) or (f"fields.{name}", general.get(name))
                if rule is not None:
                    treatments[name] = _treatment(spec, event, name, prop, rule, refuse, path)
    return table


def _shared(event: Event) -> Iterator[tuple[str, Property]]:
    """The properties of an event that may ever be shared, and that are an anonymizer's business."""
    yield from ((name, prop) for name, prop in BASE.items() if name not in _UNTOUCHED)
    yield from ((name, prop) for name, prop in event.properties.items() if prop.shared_at("debug"))


def _own(settings: Settings, spec: TelemetrySpec, event: Event) -> Iterator[tuple[str, tuple[str, Rule]]]:
    """Property → where the rule stands that is for this event alone, and the rule."""
    for written in (event.name, f"{spec.meta.name}/{event.name}"):
        for name, rule in settings.events.get(written, {}).items():
            yield name, (f'events."{written}".{name}' if "/" in written else f"events.{written}.{name}", rule)


def _treatment(
    spec: TelemetrySpec, event: Event, name: str, prop: Property, rule: Rule, refuse: _Refusals, path: str
) -> Treatment:  # fmt: skip
    masked = name in event.properties and event.masks(name)
    try:
        change = operation(prop, name, rule, masked=masked)
    except Refused as fault:
        raise refuse(f"{path}.{fault.key}", f"{fault.found} ({event.name})", fault.expected) from None
    if name == "timestamp" and (rule.rare is not None or rule.remove):
        raise refuse(path, "takes 'timestamp' out", "generalise: without it nothing is shared")
    place = name if name in BASE else f"{spec.meta.name}/{event.name} {name}"
    return Treatment(change, rule.rare, prop.max_items is not None, suppressed(prop), place)


# -- names -------------------------------------------------------------------------------------------------------------


def _check_names(settings: Settings, specs: Sequence[TelemetrySpec], refuse: _Refusals) -> None:
    every = [event for spec in specs for event in spec.events]
    for name in settings.fields:
        _check_property(name, every, refuse, f"fields.{name}", "any event")
    known = {event.name for event in every}
    named = {spec.meta.name for spec in specs}
    for written, rules in settings.events.items():
        spec_name, slash, bare = written.rpartition("/")
        if slash and spec_name not in named:
            continue  # a project's spec, say, that is not in force here: none of its events is shared here either
        events = [event for spec in specs for event in spec.events
                  if event.name == bare and spec_name in ("", spec.meta.name)]  # fmt: skip
        if not events:
            raise refuse(f"events.{written}", "no spec that is in force here declares such an event",
                         "the name of one; or 'SPEC/EVENT' for a spec that is not always there",
                         nearest(bare, known))  # fmt: skip
        for name in rules:
            _check_property(name, events, refuse, f"events.{written}.{name}", bare)


def _check_property(name: str, events: Iterable[Event], refuse: _Refusals, path: str, whose: str) -> None:
    if name in _UNTOUCHED:
        raise refuse(path, f"cannot be changed: {_UNTOUCHED[name]}")
    if name in BASE:
        return
    found = [event.properties[name] for event in events if name in event.properties]
    if not found:
        known = {*BASE, *(each for event in events for each in event.properties)} - _UNTOUCHED.keys()
        raise refuse(path, f"is no property of {whose}", "one that a spec declares", nearest(name, known))
    if not any(prop.shared_at("debug") for prop in found):
        raise refuse(path, "is never shared with anybody", "no rule for it")
