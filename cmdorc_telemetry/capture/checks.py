"""What somebody passed for an event → the JSON object of what may be recorded of it, and what is wrong with the rest.

The one place that judges this, for cmdorc's own events and for those of any application. Mostly one pass in C finds
nothing wrong; only where it does, each property is looked at by itself. Never raises, whatever it is given: a value
may be any object, and raise anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from ..results import Reason, Violation
from ..spec import MASK, Event, Property, TelemetrySpec, Version, coerce, masked_names, own_shape
from ..spec.versions import MOST, Order, order

_encode = msgspec.json.Encoder(enc_hook=str.__str__).encode
"""Writes a kind of text of its own, which msgspec does not know, as the text."""
_FAULTS = (Exception, SystemExit)
"""What a value may raise that is somebody's object."""
_MOST_NAME = 100
_A_TABLE = "a mapping of names to values"


class Declared(NamedTuple):
    """An event, and the spec that declares it."""

    spec: TelemetrySpec
    event: Event


class Events:
    """The events of some specs that have not expired by ``today``, by name and version.

    Of versions of a spec that declare the same version of an event the last one has the say: in a registry, the latest.
    """

    def __init__(self, specs: Iterable[TelemetrySpec], today: date) -> None:
        self._versions: dict[tuple[str, Order], Declared] = {}
        self._latest: dict[str, Declared] = {}
        for spec in specs:
            for event in sorted(spec.in_force(today).events, key=lambda event: order(event.version)):
                self._versions[event.name, order(event.version)] = self._latest[event.name] = Declared(spec, event)

    def find(self, name: str, version: Version | None = None) -> Declared | None:
        """The event of that name and version, the latest where it is None; None for nothing, whatever was passed."""
        try:
            return self._latest.get(name) if version is None else self._versions.get((name, order(version)))
        except _FAULTS:  # no name, or no version
            return None

    def versions(self, name: str) -> list[Version]:
        """The versions of an event that are declared."""
        return [self._versions[key].event.version for key in sorted(key for key in self._versions if key[0] == name)]

    def __contains__(self, name: object) -> bool:
        return name in self._latest

    def __iter__(self) -> Iterator[str]:
        return iter(self._latest)


class Check:
    """The declaration of one event, compiled."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self._properties = event.properties
        self._shape = own_shape(event)
        self._unknown = frozenset(name for name, prop in event.properties.items() if prop.type == "json")
        """Values of unknown shape: declared, and never recorded."""
        self._masked = masked_names(event) - self._unknown
        self._required = {name for name, prop in event.properties.items()
                          if prop.required and name not in self._unknown}  # fmt: skip
        parts = [name.split(".") for name in event.properties if "." in name]
        self._tables = frozenset(".".join(steps[:end]) for steps in parts for end in range(1, len(steps)))
        """Where properties stand for parts of a value."""
        self._plain = not (self._masked or self._unknown or self._tables)

    def own(
        self, properties: Mapping[str, Any], context: Mapping[str, Any] | None = None
    ) -> tuple[bytes | None, tuple[Violation, ...]]:
        """What may be recorded, as JSON, and what is wrong; None where the event lacks what it requires."""
        try:
            given = properties if self._plain and not context else dict(self._given(properties, context))
            return _encode(msgspec.convert(given, self._shape)), ()
        except _FAULTS:  # some of it is not valid, or nothing that JSON could hold, or code of somebody else
            return self._one_by_one(properties, context)

    def declares(self, name: str) -> bool:
        """Whether a property of that name, or parts of it, are declared."""
        return name in self._properties or name in self._tables

    def _given(self, properties: Mapping[str, Any], context: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
        """Every value by the path that it is declared by, or would be: ``balance.amount``, ``context.user_id``.

        Masks stand for what is not to be seen; what is of no known shape is left out.
        """
        yield from self._parts(properties.items(), "")
        if context:
            yield from self._parts(context.items(), "context.")

    def _parts(self, items: Iterable[tuple[Any, Any]], at: str) -> Iterator[tuple[str, Any]]:
        for name, value in items:
            path = at + _text(name)
            if path in self._tables and (inside := _items(value)) is not None:
                yield from self._parts(inside, f"{path}.")
            elif path in self._masked:
                yield path, value if value is None else MASK
            elif path not in self._unknown and not self._inside_unknown(path):
                yield path, value

    def _inside_unknown(self, path: str) -> bool:
        """Whether it is an undeclared part of a value of unknown shape, which is declared as a whole."""
        return path not in self._properties and any(path.startswith(f"{name}.") for name in self._unknown)

    # -- where something is wrong ------------------------------------------------------------------------------------

    def _one_by_one(
        self, properties: Mapping[str, Any], context: Mapping[str, Any] | None
    ) -> tuple[bytes | None, tuple[Violation, ...]]:
        valid: dict[str, Any] = {}
        wrong: list[Violation] = []
        for part, values in (("properties", properties), ("context", context)):
            items = _items(values)
            if items is None and (part == "properties" or values is not None):
                wrong.append(self._violation("", "invalid", part, values, _A_TABLE))
            for name, value in self._parts(items or (), "context." if part == "context" else ""):
                wrong += self._judged(name, value, valid)
        lacking = self._required - valid.keys()
        told = {each.property for each in wrong}
        wrong += [self._violation(name, "missing", name, None, expected(self._properties[name]))
                  for name in sorted(lacking - told)]  # fmt: skip
        return (None if lacking else _encode(valid)), tuple(wrong)

    def _judged(self, name: str, value: Any, valid: dict[str, Any]) -> list[Violation]:
        """What is wrong with one property; ``valid`` gets it where that is nothing."""
        prop = self._properties.get(name)
        if prop is None and name in self._tables:
            return [self._violation(name, "invalid", name, value, _A_TABLE)]
        if prop is None:
            return [self._violation(name, "undeclared", name, value, _near(name, tuple(self._properties)))]
        try:
            coerced = MASK if value is MASK and name in self._masked else coerce(prop, value)
            _encode(coerced)
        except _FAULTS:
            place, found = _culprit(prop, value)
            right = expected(msgspec.structs.replace(prop, max_items=None) if place else prop)
            return [self._violation(name, "invalid", name + place, found, right)]
        valid[name] = coerced
        return []

    def _violation(self, name: str, reason: Reason, path: str, found: object, right: str) -> Violation:
        return Violation(self.event.name, printable(name), reason, printable(path),
                         "" if reason == "missing" else type_name(found), right)  # fmt: skip


def _items(value: object) -> list[tuple[Any, Any]] | None:
    """What a mapping holds; None for what is none, or cannot be read."""
    try:
        return [(name, each) for name, each in value.items()] if isinstance(value, Mapping) else None
    except _FAULTS:
        return None


def _text(name: object) -> str:
    """The name of a property as text, whatever it is."""
    if type(name) is str:
        return name
    return str.__str__(name) if issubclass(type(name), str) else f"<{type_name(name)}>"


def printable(text: str) -> str:
    """``text`` as a log may hold it."""
    short = text if len(text) <= _MOST_NAME else text[:_MOST_NAME] + "…"
    return short if short.isprintable() else "".join(char if char.isprintable() else "?" for char in short)


def type_name(value: object) -> str:
    """What kind of thing ``value`` is; not a word of what it is."""
    try:
        return printable(_text(type(value).__name__))
    except _FAULTS:  # a class may say of itself what it likes
        return "object"


def _culprit(prop: Property, value: Any) -> tuple[str, object]:
    """Where in ``value`` it is wrong, such as ``[3]``, and what is there."""
    one = msgspec.structs.replace(prop, max_items=None)
    for number, item in enumerate(value if prop.max_items is not None and type(value) in (list, tuple) else ()):
        try:
            _encode(coerce(one, item))
        except _FAULTS:
            return f"[{number}]", item
    return "", value


@lru_cache(maxsize=1000)
def expected(prop: Property) -> str:
    """Which values a property may have, in words."""
    from ..spec.outputs import values

    if prop.type == "bucket":
        return values(prop).replace("<", "a number, or its range: <", 1)
    matches = f" that matches {prop.pattern}" if prop.pattern else ""
    return values(prop) + matches


@lru_cache(maxsize=1000)
def _near(name: str, known: tuple[str, ...], kind: str = "property") -> str:
    """What would be right in place of a name that nobody declared."""
    from ..errors import nearest

    near = nearest(name[:_MOST_NAME], known)
    return f"a declared {kind}" + (f", such as {near!r}" if near else "")


def no_such_event(name: object, version: object, events: Events) -> Violation:
    """What to say of an event that nobody declares."""
    called = printable(_text(name))
    versions = events.versions(called)
    right = f"version {' or '.join(map(str, versions))}" if versions else _near(called, tuple(events), "event")
    return Violation(called, "", "unknown", "" if version is None else _version(version), "no such event", right)


def _version(version: object) -> str:
    if type(version) is int and abs(version) <= MOST:
        return f"version {version}"
    return f"version {printable(_text(version)) if issubclass(type(version), str) else type_name(version)}"
