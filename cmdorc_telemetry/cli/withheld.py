"""Who withheld what of an event, and why: a field from a body, or all of it from a destination. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..config import DestinationConfig, TelemetryLevel
from ..decision import level_name
from ..identity import load_identity
from ..spec import BASE, LEVELS, Level, Property, lower, sampled, shared_names
from ..types import Row
from .machine import Machine

if TYPE_CHECKING:
    from ..spec import Event
    from .fields import Shown

Line = tuple[str, str, str]
"""A field, who withheld it, and why."""


def fields_withheld(machine: Machine, shown: Shown) -> list[Line]:
    """The fields of an event that are not in a body, or not with the value that was captured."""
    if shown.private:
        return _unwanted(machine, shown)
    asking = _Asking(machine, shown)
    properties = {**BASE, **shown.event.properties}
    found = ((name, asking.about(name, prop)) for name, prop in properties.items())
    return [(name, *reason) for name, reason in found if reason is not None]


def _unwanted(machine: Machine, shown: Shown) -> list[Line]:
    """Of a destination of the user's own, nobody but its receiver withholds anything."""
    without = machine.pipeline.wishes(shown.to.name).of(shown.event.name).without if shown.to is not None else ()
    names = (*BASE, *shown.event.properties)
    return [(name, "receiver", "it asks for less") for name in names if name in without]


class _Asking:
    """Asks of each field why it is not there: the gate's reasons first, in its order, then the destination's."""

    def __init__(self, machine: Machine, shown: Shown) -> None:
        pipeline, row = machine.pipeline, shown.row
        self._taken, self._to = shown.taken if row is None else row.withheld, shown.to
        self._captured: Mapping[str, Any] | None = None if row is None else json.loads(row.private)
        self._renamed = shown.to.rename if shown.to is not None else {}
        self._body: Mapping[str, Any] = json.loads(shown.body)
        now, kind = f"{pipeline.policy.generation}/", (shown.spec.ref, shown.event.name)
        shares = pipeline.policy.share is not TelemetryLevel.OFF
        self._waiting = pipeline.decision.hidden(*kind, now) if shares else frozenset[str]()
        self._lacking = self._waiting if row is None else pipeline.decision.hidden(*kind, row.generation)
        widest = None if row is None else pipeline.shared_body(row)
        had: Any = self._body if widest is None else json.loads(widest)
        self._level: Level = had.get(self._name("level") if widest is None else "level", LEVELS[0])
        wanted = pipeline.wishes(shown.to.name).of(shown.event.name) if shown.to is not None else None
        self._without = wanted.without if wanted is not None else frozenset()
        self._asked = wanted.level if wanted is not None else LEVELS[-1]
        self._anonymizers = " or ".join(each.name for each in pipeline.anonymizers) or "anonymizer"

    def _name(self, name: str) -> str:
        return self._renamed.get(name, name)

    def about(self, name: str, prop: Property) -> tuple[str, str] | None:
        """Who withheld a field, and why; None where nobody did."""
        had = None if self._captured is None else self._captured.get(name)
        value = self._body.get(self._name(name))
        if value is not None:
            return (self._anonymizers, "replaced by another value") if had not in (None, value) else None
        if prop.audience == "private":
            there = self._captured is None or had is not None
            return ("audience", "private: only for you and what is yours") if there else None
        if prop.pii or prop.redact:
            return "spec", "marked as personal"
        if name in self._taken:
            return self._taken[name], "removed, or given a value that its spec does not allow"
        if not _covers(self._level, prop):
            return "level", f"shared at level {prop.level}"
        if name in self._waiting | self._lacking:
            return "consent", "not shown to you yet" if name in self._waiting else "recorded before you agreed to it"
        return self._by_destination(name, prop) if had is not None or self._captured is None else None

    def _by_destination(self, name: str, prop: Property) -> tuple[str, str] | None:
        """What a destination does not get of what others may."""
        limit = level_name(self._to.level) if self._to is not None and self._to.level is not None else LEVELS[-1]
        if self._to is not None and not _covers(limit, prop):
            return self._to.name, f"its level is {limit}"
        if name in self._without or not _covers(self._asked, prop):
            return "receiver", "it asks for less"
        return None


def _covers(level: Level | None, prop: Property) -> bool:
    """Whether what is shared at ``level`` has such a field."""
    return lower(prop.level, level) == prop.level


def why_nothing(machine: Machine, row: Row, event: Event, to: DestinationConfig | None) -> str:
    """Why nothing at all of a stored event leaves: for ``to``, or for anybody. The rest of a sentence."""
    pipeline = machine.pipeline
    level, share = pipeline.level_of(row.generation, row.spec.partition("@")[0]), pipeline.policy.share
    identity = load_identity(machine.home)
    if identity is None or identity.install_id.encode() not in row.private:
        return "nothing of it leaves: it was recorded under an id that was given up"
    if share is TelemetryLevel.OFF:
        return "nothing is shared: telemetry records on this machine only"
    if level is None:
        return "nothing of it is shared: when it was recorded, nothing was"
    if not event.shared_at(level):
        return f"level {level} shares nothing of it"
    if row.shared is None:
        return f"nothing of it is shared: {_held_back(machine, row, event)}"
    if to is not None and to.level is not None and not event.shared_at(lower(level, level_name(to.level))):
        return f"{to.name} gets nothing of it, for its level is {to.level.value}"
    consent = pipeline.situation.consent
    if to is not None and consent is not None and not consent.reaches(row.generation.partition("/")[0], to.name):
        return f"{to.name} gets nothing of it: it was recorded before you agreed to {to.name}"
    return "nothing of it is shared: its spec has changed since, and does not allow what it holds"


def _held_back(machine: Machine, row: Row, event: Event) -> str:
    """What the gate did not let out."""
    pipeline = machine.pipeline
    sampler = pipeline.shapes.sampler(row.spec, row.event, row.version)
    if sampler is not None:
        body = json.loads(row.private)
        level = pipeline.level_of(row.generation, row.spec.partition("@")[0])
        share = sampler.share({name: body[name] for name in shared_names(event, level) if name in body})
        if share is None:
            return "sampling shares only those that meet its conditions, and not this one"
        if not sampled(pipeline.subject(row) or body.get("event_id", ""), share):
            return f"sampling shares {share * 100:g} % of such events, and not this one"
    if blocked := pipeline.blocked():
        return blocked
    if pipeline.anonymizers:
        return f"{' or '.join(each.name for each in pipeline.anonymizers)}, which anonymizes, held it back"
    return "a value in it is not what its spec allows"
