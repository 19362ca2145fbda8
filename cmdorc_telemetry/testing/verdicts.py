"""One event as it came over the wire → good, or bad with every reason: decided by the specs alone, as a server does.

A server says the first thing that is wrong; here all of it is said, with the values: they are an author's own, and
stay on the author's machine.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from ..capture.checks import expected
from ..errors import nearest
from ..spec import BASE, LEVELS, MASK, Event, Level, TelemetryRegistry, wire_shape

_CORE = "cmdorc.core@1"
WHOLE = ("unreadable", "unknown-spec", "unknown-event")
"""Reasons that are about an event as a whole."""
_CUT = 16_384
"""Characters of a bad event that are kept."""


class Properties(dict[str, Any]):
    """The own properties of one event, to be compared with a plain dictionary."""

    def __init__(self, event: str, spec: str, body: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in body.items() if name not in BASE})
        self.event, self.spec = event, spec
        self.base = {name: value for name, value in body.items() if name in BASE}
        """The fields that every event has, such as ``event_id`` and ``timestamp``."""


class Reason(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with an event."""

    reason: str
    """One of ``WHOLE``; or of a property ``undeclared``, ``invalid``, ``missing``, ``private``, or ``level`` where
    it is declared for a higher level than the event's own."""
    property: str = ""
    detail: str = ""
    found: Any = msgspec.UNSET


class Bad(Struct, frozen=True):
    """An event that a server would not take, and why."""

    event: str
    """What it says that it is; empty where it does not."""
    spec: str
    reasons: tuple[Reason, ...]
    body: Any
    """As it came: JSON's value, or the begin of the text where it is none or too long."""
    event_id: str = ""


class _Head(Struct):
    event: str
    spec: str = _CORE
    level: Level = "minimal"


class _Kind:
    """What is known of one event at one level."""

    def __init__(self, event: Event, level: Level, *, private: bool) -> None:
        shape = wire_shape(event, None if private else level)
        self.event, self.level = event, level
        self.decode = msgspec.json.Decoder(shape).decode
        self._types = {field.encode_name: field.type for field in fields(shape)}
        self._required = [field.encode_name for field in fields(shape) if field.required]

    def faults(self, body: Mapping[str, Any]) -> Iterator[Reason]:
        """Everything that is wrong with ``body``."""
        for name, value in body.items():
            if name not in self._types:
                yield self._foreign(name, value)
                continue
            try:
                msgspec.json.decode(msgspec.json.encode(value), type=self._types[name])
            except msgspec.ValidationError as fault:
                yield Reason("invalid", name, self._right(name) or str(fault), value)
        for name in self._required:
            if name not in body:
                yield Reason("missing", name, "every event has it")

    def _right(self, name: str) -> str:
        """What a property of its own should be; empty for a base field."""
        prop = self.event.properties.get(name)
        if prop is None:
            return ""
        return f"expected the mask {MASK!r}" if self.event.masks(name) else f"expected {expected(prop)}"

    def _foreign(self, name: str, value: Any) -> Reason:
        prop = self.event.properties.get(name)
        if prop is None:
            near = nearest(name, self.event.properties)
            hint = f"; did you mean {near!r}?" if near else ""
            return Reason("undeclared", name, f"{self.event.name} declares no such property{hint}", value)
        if prop.audience == "private" or prop.type == "json":
            return Reason("private", name, "never leaves the machine for a server of somebody else's", value)
        return Reason("level", name, f"is of level {prop.level}, and the event of level {self.level}", value)


_head = msgspec.json.Decoder(_Head).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class Judge:
    """Judges events by the specs of ``registry``; with ``private``, private properties are good."""

    def __init__(self, registry: TelemetryRegistry, *, private: bool = False) -> None:
        self._specs = {spec.ref: spec for spec in registry}
        self._kinds = {
            (spec.ref, event.name, level): _Kind(event, level, private=private)
            for spec in registry for event in sorted(spec.events, key=lambda event: event.major) for level in LEVELS
            if private or event.shared_at(level)
        }  # fmt: skip

    def __call__(self, line: bytes) -> Properties | Bad:
        """The verdict on the event in ``line``. Never raises, whatever the line."""
        try:
            body = _object(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as fault:
            why = "invalid" if isinstance(fault, msgspec.ValidationError) else "unreadable"
            return Bad("", "", (Reason(why, detail=f"no JSON object: {fault}"),), _begin(line))
        event, spec, event_id = (_text(body.get(name)) for name in ("event", "spec", "event_id"))
        reasons = tuple(self._reasons(line, body))
        if reasons:
            return Bad(event, spec or _CORE, reasons, body if len(line) <= _CUT else _begin(line), event_id)
        body.setdefault("event_id", str(uuid.uuid5(uuid.NAMESPACE_OID, repr(sorted(body.items())))))
        return Properties(event, spec or _CORE, body)

    def _reasons(self, line: bytes, body: Mapping[str, Any]) -> Iterator[Reason]:
        try:
            head = _head(line)
        except msgspec.ValidationError as fault:
            yield Reason("invalid", _place(str(fault)), str(fault))
            return
        kind = self._kinds.get((head.spec, head.event, head.level))
        if kind is None:
            yield self._unknown(head)
            return
        try:
            fields: Any = kind.decode(line)
            datetime.fromisoformat(fields.timestamp.removesuffix("Z") + "+00:00")
        except msgspec.ValidationError as fault:
            yield from tuple(kind.faults(body)) or (Reason("invalid", _place(str(fault)), str(fault)),)
        except ValueError:
            yield Reason("invalid", "timestamp", "Expected a moment", body["timestamp"])

    def _unknown(self, head: _Head) -> Reason:
        spec = self._specs.get(head.spec)
        if spec is None:
            return Reason("unknown-spec", "spec", f"expected one of {', '.join(sorted(self._specs))}", head.spec)
        names = [event.name for event in spec.events]
        if head.event not in names:
            near = nearest(head.event, names)
            hint = f"; did you mean {near!r}?" if near else ""
            return Reason("unknown-event", "event", f"{head.spec} declares no such event{hint}", head.event)
        return Reason("level", "level", f"{head.event} is not shared at this level", head.level)


def _begin(line: bytes) -> str:
    return line[:_CUT].decode("utf-8", "replace")


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


def _place(fault: str) -> str:
    """The property that a message of msgspec's is about; empty where it is the whole event."""
    return fault.rpartition("`$.")[2].rstrip("`") if "`$." in fault else ""
