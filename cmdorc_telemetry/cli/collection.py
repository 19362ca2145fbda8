"""What each field of the specs is, holds here, and who gets it: for the page of ``view``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..config import DestinationConfig, TelemetryLevel
from ..decision import level_name
from ..declarations import declarations, waiting_fields
from ..spec import BASE, Event, Property, TelemetrySpec, lower
from ..spec.outputs import recorded, sampled
from ..spec.outputs import values as kind
from ..view.facts import EventFacts, FieldFacts, FieldState, Withheld
from .machine import Machine


class _Spec:
    """One spec on this machine: what is agreed of it, and by which level."""

    def __init__(self, machine: Machine, spec: TelemetrySpec) -> None:
        self.spec, self.machine, self.declared = spec, machine, declarations(spec)
        policy = machine.situation.policy(layered=False, spec=spec.meta.name)
        consent = machine.situation.consent
        grant = consent.grants.get(spec.meta.name) if consent is not None else None
        self.level = level_name(policy.share)
        self.waiting = waiting_fields(spec, grant) if policy.record and policy.decided_by == "you" else frozenset()

    def _key(self, event: Event | None, name: str) -> str:
        """What consent calls a field."""
        if event is None:
            return f"*/{name}"
        key = f"{self.spec.label(event)}/{name}"
        return key if key in self.declared else f"{event.name}/{name}"

    def _state(self, key: str, prop: Property) -> FieldState:
        """Whether a field may be shared, and what keeps it otherwise; ``key`` is what consent calls it."""
        if prop.audience == "private":
            return "private"
        if prop.pii or prop.redact:
            return "personal"
        if self.level is None:
            return "local"
        if not prop.shared_at(self.level):
            return "level"
        return "waits" if key in self.waiting else "allowed"

    def _gets(
        self, to: DestinationConfig, event: Event | None, name: str, prop: Property, state: FieldState
    ) -> bool:  # fmt: skip
        """Whether a destination gets a field."""
        if event is not None and to.events is not None and event.name not in to.events:
            return False
        wishes = self.machine.pipeline.wishes(to.name)
        wanted = wishes.every if event is None else wishes.of(event.name)
        if name in wanted.without or lower(prop.level, wanted.level) != prop.level:
            return False
        if to.audience == "private":
            return True
        return state == "allowed" and prop.shared_at(lower(self.level, level_name(to.level or TelemetryLevel.DEBUG)))

    def fields(self, event: Event | None, held: Mapping[str, Any]) -> Iterator[FieldFacts]:
        """Those of an event, or the base fields."""
        foreign = self.machine.application.foreign_fields if event is None else ()
        for name, prop in (BASE if event is None else event.properties).items():
            if name in foreign:
                continue
            state = self._state(self._key(event, name), prop)
            goes = [to for to in self.machine.pipeline.allowed if self._gets(to, event, name, prop, state)]
            if any(to.audience == "shared" for to in goes):
                state = "shared"
            yield FieldFacts(
                name=name, about=prop.description, kind=kind(prop) if event is None else recorded(event, name),
                value=_text(held.get(name)), level=prop.level, state=state, goes=tuple(to.name for to in goes),
            )  # fmt: skip


def events(machine: Machine, values: Mapping[str, bytes]) -> Iterator[EventFacts]:
    """What all events have, then each that a spec declares; ``values`` is the newest body of each."""
    held = {name: json.loads(body) for name, body in values.items()}
    newest: Mapping[str, Any] = max(held.values(), key=lambda body: str(body.get("timestamp")), default={})
    for number, spec in enumerate(machine.pipeline.registry):
        here = _Spec(machine, spec)
        if number == 0:
            yield EventFacts(fields=tuple(here.fields(None, newest)))
        for event in spec.events:
            yield EventFacts(
                name=spec.label(event), what=event.semantics.what, why=event.semantics.why,
                days=spec.retention_days(event), sampled=sampled(spec, event),
                fields=tuple(here.fields(event, held.get(event.name, {}))),
            )  # fmt: skip


_WHY: Mapping[FieldState, tuple[str, str]] = {
    "private": ("the spec", "private: for you, and destinations of your own"),
    "personal": ("the spec", "marked as personal"),
    "level": ("your level", "shared only at a higher one"),
    "waits": ("your consent", "added or changed since you said yes"),
}


def withheld_fields(machine: Machine) -> Iterator[Withheld]:
    """The fields that nobody else gets, by what keeps them."""
    declared = list(events(machine, {}))
    for state, (by, why) in _WHY.items():
        names = {each.name: tuple(field.name for field in each.fields if field.state == state) for each in declared}
        what = {event: fields for event, fields in names.items() if fields}
        if what:
            yield Withheld(what=what, by=by, why=why)


def _text(value: object) -> str | None:
    """A value as it is written; None for none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return json.dumps(value)
