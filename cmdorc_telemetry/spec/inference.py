"""A spec proposed from events that were observed: their types and bounds, and none of their values.

What is kept of a value is which types it fits, how long or how large it was, rounded outward, and which kinds of
characters it had. Of texts a digest is kept while events are read, only to see whether there are few different ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from math import floor, isfinite, log10
from typing import Any, NamedTuple

import msgspec

from ..errors import SpecError
from .lint.privacy import looks_personal
from .model import Event, Meta, Semantics, TelemetrySpec
from .property import BASE, NAME, Property
from .shapes import PATTERNS

FEW = 20
"""Texts of which there are no more than this look like an enum."""
MOST_DIGESTS = 10 * FEW
MAX_DEPTH = 5
_ENVELOPE = ("event", "name", "properties", "context", "version", "timestamp")
_CLASSES = (("a-z", str.islower), ("A-Z", str.isupper), ("0-9", str.isdigit))
_SIGNS = " ._:/@+-"
_FORMATS = tuple((type_, re.compile(rf"\A(?:{pattern})\Z")) for type_, (pattern, _) in PATTERNS.items())


class Proposal(NamedTuple):
    """What was made of the events."""

    spec: TelemetrySpec
    notes: dict[str, str]
    """Path of a property → what a person should look at, such as that it looks like an enum."""
    events: int
    skipped: int
    """Lines that are no events."""


def propose(lines: Iterable[bytes], name: str, where: object = "events") -> Proposal:
    """The spec that events, one JSON object a line, fit. Raises SpecError where none of the lines is an event.

    An event is ``{"event": NAME, …}`` with its properties beside it or in ``properties``.
    """
    seen: dict[str, _EventSeen] = {}
    events = skipped = 0
    for line in lines:
        if not line.strip():
            continue
        found = _event(line)
        if found is None:
            skipped += 1
            continue
        events += 1
        event, properties = found
        seen.setdefault(event, _EventSeen()).add(properties)
    if not seen:
        raise SpecError(where, "", f"holds no events ({skipped} other lines)", 'lines such as {"event": "paid", …}')
    notes: dict[str, str] = {}
    made = [_made(event, each, notes) for event, each in sorted(seen.items())]
    return Proposal(TelemetrySpec(meta=Meta(name=name), events=tuple(made)), notes, events, skipped)


def _event(line: bytes) -> tuple[str, dict[str, Any]] | None:
    try:
        told = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    name = (told.get("event") or told.get("name")) if isinstance(told, dict) else None
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return None
    properties, context = told.get("properties"), told.get("context")
    if not isinstance(properties, dict):
        properties = {key: value for key, value in told.items() if key not in _ENVELOPE}
    if isinstance(context, dict):
        properties = {**properties, **{f"context.{key}": value for key, value in context.items()}}
    return name, {key: value for key, value in properties.items() if key not in BASE}


class _EventSeen:
    def __init__(self) -> None:
        self.count = 0
        self.properties: dict[str, _Seen] = {}

    def add(self, properties: Mapping[str, Any]) -> None:
        self.count += 1
        for name, value in _flat(properties):
            self.properties.setdefault(name, _Seen()).add(value)


def _flat(table: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """The values in a table, those of its tables by their path; what cannot be a property is left out."""
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and depth < MAX_DEPTH:
            yield from _flat(value, f"{path}.", depth + 1)
        elif value is not None and not isinstance(value, dict) and NAME.fullmatch(path):
            yield path, value


class _Seen:
    """What is kept of the values of one property."""

    def __init__(self) -> None:
        self.count = self.items = self.length = 0
        self.kinds: set[str] = set()
        self.low = self.high = 0.0
        self.formats = {type_ for type_, _ in _FORMATS}
        self.classes: set[str] = set()
        self.digests: set[int] = set()

    def add(self, value: Any) -> None:
        self.count += 1
        if isinstance(value, list):
            self.kinds.add("list")
            self.items = max(self.items, len(value))
            for item in value:
                self._add(item)
        else:
            self.kinds.add("one")
            self._add(value)

    def _add(self, value: Any) -> None:
        if isinstance(value, bool):
            self.kinds.add("bool")
        elif isinstance(value, int | float) and isfinite(value):
            first = not self.kinds & {"int", "float"}
            self.kinds.add("int" if isinstance(value, int) else "float")
            self.low = value if first else min(self.low, value)
            self.high = value if first else max(self.high, value)
        elif isinstance(value, str):
            self._add_text(value)
        else:
            self.kinds.add("table")

    def _add_text(self, text: str) -> None:
        self.kinds.add("text")
        self.length = max(self.length, len(text))
        self.formats = {type_ for type_, pattern in _FORMATS if type_ in self.formats and pattern.match(text)}
        if "." not in text:  # a number, or the begin of one: nobody means a version
            self.formats.discard("version")
        for sign in set(text):
            named = next((name for name, is_of in _CLASSES if sign.isascii() and is_of(sign)), None)
            self.classes.add(named or (sign if sign in _SIGNS else "any"))
        if len(self.digests) <= MOST_DIGESTS:
            self.digests.add(hash(text))

    def fitting(self, name: str, *, required: bool) -> Property:
        """What fits all values."""
        personal = looks_personal(name)
        told: dict[str, Any] = {"required": required, "pii": personal, "redact": personal}
        kinds = self.kinds - {"list", "one"} if len(self.kinds & {"list", "one"}) == 1 else set()
        if "list" in self.kinds:
            told["max_items"] = int(_outward(max(self.items, 1)))
        if kinds == {"bool"}:
            return Property(type="bool", **told)
        if kinds and kinds <= {"int", "float"}:
            return self._number(name, told)
        if kinds == {"text"} and self.formats:
            type_ = next(type_ for type_, _ in _FORMATS if type_ in self.formats)
            return Property(type=type_, **told)
        if kinds == {"text"}:
            pattern = "(?s:.*)" if "any" in self.classes else f"[{''.join(map(_escaped, sorted(self.classes)))}]*"
            return Property(type="string", pattern=pattern, max_length=int(_outward(max(self.length, 1))), **told)
        told.pop("max_items", None)
        return Property(type="json", **{**told, "required": False})

    def _number(self, name: str, told: dict[str, Any]) -> Property:
        low, high = -_outward(-self.low) if self.low < 0 else 0.0, _outward(self.high)
        if self.kinds & {"float"} or low < 0:
            return Property(type="number", min=low, max=max(high, low), **told)
        unit = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().rpartition("_")[2]
        return Property(type="duration_ms" if unit in ("ms", "millis") else "count", **told)

    @property
    def few(self) -> bool:
        """Whether there were many texts, and few different ones."""
        return "text" in self.kinds and not self.formats and len(self.digests) <= FEW < self.count


def _escaped(sign: str) -> str:
    return rf"\{sign}" if sign == "-" else sign


def _outward(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, … that is not less than ``value``; 0 for what is not above 0."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** floor(log10(value))
    return next(step * unit for step in (1, 2, 5, 10, 20) if step * unit >= value)


def _made(name: str, seen: _EventSeen, notes: dict[str, str]) -> Event:
    properties = {}
    for each, values in sorted(seen.properties.items()):
        prop = properties[each] = values.fitting(each, required=values.count == seen.count)
        path = f"events.{name}.properties.{each}"
        if prop.pii:
            notes[path] = "It is called like something personal: it is masked."
        elif prop.type == "json":
            notes[path] = "Its values are of several types, or too deep: it is withheld."
        elif values.few:
            notes[path] = f"There were {len(values.digests)} different texts: an enum of them would be safer."
        elif prop.type == "string":
            notes[path] = "A text: think about an enum, a bucket or a hash."
    return Event(name=name, semantics=Semantics(what=""), properties=properties)
