"""What a body may hold, compiled: one msgspec type an event, audience and level.

Decoding a body into its shape drops what is not allowed and checks what is, in one pass in C.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, timezone
from functools import lru_cache
from math import ceil, floor, isnan
from operator import attrgetter
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from .model import Event, TelemetrySpec
from .property import BASE, LEVELS, MASK, Level, Property, ValueType, bucket_labels
from .sampling import Sampler

Kind = tuple[str, str, "int | None"]
"""A spec's ``ref``, an event of it, and its major version; None for the latest."""
MOST = 2**53
REQUIRED = ("event", "anonymous_install_id", "timestamp")
"""Base fields without which a server cannot take an event."""
CAPTURED = (*REQUIRED, "event_id", "spec")
"""Base fields that every captured body has."""
ANYTHING = "(?s:.*)"
"""The pattern of a string that is bounded by its length alone."""
PATTERNS: Mapping[ValueType, tuple[str, int]] = {
    "hash": (r"[0-9a-f]{12}", 12),
    "version": (r"[0-9][0-9A-Za-z.+!\-]*", 40),
    "uuid": (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", 36),
    "timestamp": (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", 20),
}
_MASKED = Annotated[str, Meta(pattern=rf"\A{re.escape(MASK)}\Z", max_length=len(MASK))]


class Body(Struct, kw_only=True, omit_defaults=True):
    """The base of all shapes."""


@lru_cache(maxsize=1000)  # to make a type costs more than to check a value by it
def _scalar(prop: Property) -> Any:
    match prop.type:
        case "bool":
            return bool
        case "count" | "duration_ms":
            most = MOST if prop.max is None else min(prop.max, MOST)
            return Annotated[int, Meta(ge=ceil(prop.min or 0), le=floor(most))]
        case "number":
            return Annotated[float, Meta(ge=prop.min, le=prop.max)]
        case "enum":
            members = (*prop.members, "other")
            return Literal[members]
        case "bucket":
            return Literal[bucket_labels(prop.edges)]
        case "string":
            if prop.pattern == ANYTHING:  # a regular expression costs more than all other checks of an event together
                return Annotated[str, Meta(max_length=prop.max_length)]
            return Annotated[str, Meta(pattern=rf"\A(?:{prop.pattern})\Z", max_length=prop.max_length)]
        case _:
            pattern, length = PATTERNS[prop.type]
            return Annotated[str, Meta(pattern=rf"\A(?:{pattern})\Z", max_length=length)]


def value_type(prop: Property) -> Any:
    """The type that msgspec checks a value of ``prop`` against."""
    if prop.max_items is None:
        return _scalar(prop)
    return Annotated[list[_scalar(prop)], Meta(max_length=prop.max_items)]  # type: ignore[misc]


def _shape(
    title: str, properties: Mapping[str, Property], *, masked: Collection[str] = (),
    required: Collection[str] = (), unmatched: Collection[str] = (), strict: bool = False,
) -> type[Body]:  # fmt: skip
    """``required`` must be there; of ``unmatched``, only that they are strings is checked; ``strict``: no others."""
    # msgspec attributes must be identifiers, property names may be anything: `rename` maps one to the other.
    fields: list[Any] = []
    names: dict[str, str] = {}
    for number, (name, prop) in enumerate(properties.items()):
        attribute = name if name.isidentifier() and name[0] != "_" else f"_{number}"
        names[attribute] = name
        type_ = _MASKED if name in masked else str if name in unmatched else value_type(prop)
        fields.append((attribute, type_) if name in required else (attribute, type_ | UnsetType, UNSET))
    shape = msgspec.defstruct(title, fields, bases=(Body,), kw_only=True, rename=names, forbid_unknown_fields=strict)
    # At its first use msgspec finds out what is in a type, and crashes the process where two threads do so at once:
    # nobody gets one that was not looked at yet.
    msgspec.json.Decoder(shape)
    return cast(type[Body], shape)


def own_shape(event: Event) -> type[Body]:
    """An event's own properties as capture takes them: those that are required must be there, and no others."""
    own = {name: prop for name, prop in event.properties.items() if prop.type != "json"}
    required = [name for name, prop in own.items() if prop.required]
    return _shape(event.name, own, masked=masked_names(event), required=required, strict=True)


def masked_names(event: Event) -> frozenset[str]:
    """The properties of which nothing but the mask is ever recorded."""
    return frozenset(filter(event.masks, event.properties))


def shared_names(event: Event, level: Level | None, *, withheld: Collection[str] = ()) -> list[str]:
    """The own properties of ``event`` that may be shared at ``level``, less those ``withheld``."""
    return [name for name, prop in event.properties.items() if prop.shared_at(level) and name not in withheld]


def shared_shape(event: Event, level: Level, *, withheld: Collection[str] = ()) -> type[Body]:
    """The body that somebody else's destination may get at ``level``: base fields and what is left of its own."""
    base = {name: prop for name, prop in BASE.items() if name not in withheld}
    own = {name: event.properties[name] for name in shared_names(event, level, withheld=withheld)}
    return _shape(event.name, {**base, **own}, masked=masked_names(event))


class CapturedReader:
    """Reads captured bodies of one kind into what may be shared of them; what that must have must be there.

    As strict as the shape, and much faster: to match the patterns of the base fields would cost more than all the
    rest, and the bodies of a journal have them in common, but for the id.
    """

    _ID = re.compile(PATTERNS["uuid"][0])
    _MOST_KNOWN = 1000

    def __init__(self, event: Event, level: Level, withheld: Collection[str]) -> None:
        base = {name: prop for name, prop in BASE.items() if name not in withheld}
        own = {name: event.properties[name] for name in shared_names(event, level, withheld=withheld)}
        required = {*CAPTURED, *(name for name, prop in own.items() if prop.required)}
        matched = [name for name, prop in base.items() if prop.type in PATTERNS or prop.type == "string"]
        masked = masked_names(event)
        self._strict = msgspec.json.Decoder(
            _shape(event.name, {**base, **own}, masked=masked, required=required)
        ).decode
        self._quick = msgspec.json.Decoder(
            _shape(event.name, {**base, **own}, masked=masked, required=required, unmatched=matched)
        ).decode
        self._common = attrgetter(*(name for name in matched if name != "event_id"))
        self._known: set[tuple[object, ...]] = set()

    def __call__(self, raw: bytes) -> Any:
        """The body, a Struct of the shape. Raises msgspec.MsgspecError, RecursionError."""
        body: Any = self._quick(raw)
        common = self._common(body)
        if common not in self._known:
            self._strict(raw)
            if len(self._known) >= self._MOST_KNOWN:
                self._known.clear()
            self._known.add(common)
        elif self._ID.fullmatch(body.event_id) is None:
            raise msgspec.ValidationError("event_id is no UUID")
        return body


def wire_shape(event: Event, level: Level | None) -> type[Body]:
    """What a server accepts: unknown fields are errors. ``level`` None admits private properties.

    An event's own properties are never required here: consent or an anonymizer may withhold any of them.
    """
    own = {name: prop for name, prop in event.properties.items()
           if prop.type != "json" and (level is None or prop.shared_at(level))}  # fmt: skip
    return _shape(event.name, {**BASE, **own}, masked=masked_names(event), required=REQUIRED, strict=True)


def coerce(prop: Property, value: Any) -> Any:
    """``value`` as ``prop`` holds it: an unknown member becomes ``other``, a number its bucket, a list is cut.

    What is masked is a mask. Raises msgspec.ValidationError where nothing makes it valid.
    """
    if prop.masked and value is not None:
        return MASK
    if prop.max_items is None:
        return _coerce_one(prop, value)
    items = msgspec.convert(value, list[Any])  # a string or a table is no list
    return [_coerce_one(prop, item) for item in items[: prop.max_items]]


def _coerce_one(prop: Property, value: Any) -> Any:
    if prop.type == "enum" and isinstance(value, str) and value not in prop.members:
        return "other"
    if prop.type == "timestamp" and isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    if prop.type == "uuid" and isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, float):  # also of a kind of its own, which msgspec does not know
        value = float.__float__(value)
    if prop.type == "bucket" and isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value):
        return bucket_labels(prop.edges)[sum(value >= edge for edge in prop.edges)]
    return msgspec.convert(value, _scalar(prop))


class Shapes:
    """The shapes of a set of specs, made once each and kept."""

    def __init__(self, specs: Iterable[TelemetrySpec]) -> None:
        self._specs = list(specs)
        self._today: date | None = None
        self._make()

    def _make(self) -> None:
        specs = self._specs if self._today is None else [spec.in_force(self._today) for spec in self._specs]
        self._events: dict[tuple[str, str, int], tuple[TelemetrySpec, Event]] = {}
        for spec in specs:
            for event in spec.events:
                found = self._events.get((spec.ref, event.name, event.major))
                # Of those that bodies cannot tell apart the last one has the say, but for what another keeps back.
                whole = event if found is None else _kept_back(event, found[1])
                self._events[spec.ref, event.name, event.major] = spec, whole
        self._latest = {(ref, name): found for (ref, name, _), found in sorted(
            self._events.items(), key=lambda each: each[0][2])}  # fmt: skip
        self._expired: dict[Kind, frozenset[str]] = {}
        for spec in self._specs if self._today is not None else ():
            for event in spec.events:
                left = self._events.get((spec.ref, event.name, event.major))
                self._expired[spec.ref, event.name, event.major] = frozenset(
                    event.properties.keys() - (left[1].properties if left else {}).keys()
                )
        self._samplers: dict[Kind, Sampler | None] = {}
        self._shared: dict[tuple[Kind, Level, frozenset[str]], type[Body] | None] = {}
        self._readers: dict[tuple[Kind, Level, frozenset[str]], CapturedReader | None] = {}

    def expire(self, today: date) -> None:
        """From now on know only what has not expired by ``today``."""
        if today != self._today:
            self._today = today
            if any(spec.in_force(today) is not spec for spec in self._specs):
                self._make()

    def event(self, ref: str, name: str, version: int | None = None) -> tuple[TelemetrySpec, Event] | None:
        """The spec and event of that name and major version, the latest where it is None; or None."""
        return self._latest.get((ref, name)) if version is None else self._events.get((ref, name, version))

    def expired(self, kind: Kind) -> frozenset[str]:
        """The properties of an event, of which the version is known, that have expired."""
        return self._expired.get(kind, frozenset())

    def label(self, ref: str, name: str, version: int) -> str:
        """What decisions know an event as: its name, and with ``@2`` an earlier version than the latest."""
        latest = self.event(ref, name)
        return name if latest is None or latest[1].major == version else f"{name}@{version}"

    def __iter__(self) -> Iterator[tuple[TelemetrySpec, Event]]:
        """Each event once, in its latest version."""
        return iter(self._latest.values())

    def sampler(self, ref: str, name: str, version: int | None = None) -> Sampler | None:
        """Which of such events are shared; None for all of them."""
        key = (ref, name, version)
        if key not in self._samplers:
            found = self.event(*key)
            made = Sampler(*found) if found is not None else None
            self._samplers[key] = made if made is not None and made.some else None
        return self._samplers[key]

    def shared(
        self, ref: str, name: str, level: Level | None, withheld: frozenset[str] = frozenset(),
        version: int | None = None,
    ) -> type[Body] | None:  # fmt: skip
        """The shape of the shared body; None where the event is unknown or has nothing of its own to share."""
        if level is None:
            return None
        key = ((ref, name, version), level, withheld)
        if key not in self._shared:
            found = self.event(ref, name, version)
            allowed = found and shared_names(found[1], level, withheld=withheld)
            self._shared[key] = shared_shape(found[1], level, withheld=withheld) if found and allowed else None
        return self._shared[key]

    def reader(
        self, ref: str, name: str, level: Level, withheld: frozenset[str] = frozenset(), version: int | None = None
    ) -> CapturedReader | None:
        """What reads captured bodies of that kind; None where there is no shape for it."""
        key = ((ref, name, version), level, withheld)
        if key not in self._readers:
            found = self.event(ref, name, version) if self.shared(ref, name, level, withheld, version) else None
            self._readers[key] = CapturedReader(found[1], level, withheld) if found else None
        return self._readers[key]


def _kept_back(event: Event, other: Event) -> Event:
    """``event``, sharing nothing that ``other`` would not: what was captured by that one looks the same."""
    properties = dict(event.properties)
    for name in properties.keys() & other.properties.keys():
        prop, less = properties[name], other.properties[name]
        if less.audience == "private" and prop.audience == "shared":
            properties[name] = replace(prop, audience="private")
        elif LEVELS.index(less.level) > LEVELS.index(prop.level):
            properties[name] = replace(prop, level=less.level)
    return event if properties == event.properties else replace(event, properties=properties)


def lower(first: Level | None, second: Level | None) -> Level | None:
    """The lesser of two levels; None (nothing) is the least."""
    if first is None or second is None:
        return None
    return LEVELS[min(LEVELS.index(first), LEVELS.index(second))]
