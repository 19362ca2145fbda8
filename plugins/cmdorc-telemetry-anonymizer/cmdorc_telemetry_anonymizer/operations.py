"""What can be done to one value: pure functions of the value and a secret. Knows the types of a spec, no settings.

``operation`` refuses at once what could never give a value that the property's declaration allows.
"""

from __future__ import annotations

import hmac
import re
import uuid
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from cmdorc_telemetry.spec import Property
from cmdorc_telemetry.spec.shapes import PATTERNS, value_type

from .settings import Rule

Secret = Callable[[bytes], bytes]
"""Makes 32 bytes of a text that nobody without the key could make, or lead back to it."""
Operation = Callable[[Any, Secret], Any]
"""Value → what is shared in its place; None for nothing."""

_NUMBERS = ("count", "duration_ms", "number")
_CHANGES = {
    "hash": ("hash",), "uuid": ("hash",), "string": ("hash", "keep"), "enum": ("keep",), "version": ("generalise",),
    "timestamp": ("generalise",), **dict.fromkeys(_NUMBERS, ("buckets",)),
}  # fmt: skip
"""Value type → what can be done to it beside removing it, and suppressing what is rare."""
_UNITS = {"version": ("major", "minor"), "timestamp": ("minute", "hour", "day", "month", "year")}
_RELEASE = re.compile(r"(?:\d+!)?(?P<parts>\d+(?:\.\d+)*)")
_ZERO = "0000-01-01T00:00:00Z"
_KEPT = {"year": 4, "month": 7, "day": 10, "hour": 13, "minute": 16}
"""How much of a timestamp says so much of the time."""
_TIME_BITS = 80
"""Of a UUIDv7, the bits behind the time."""


class Refused(Exception):
    """A rule that could never give a valid value; says what is wrong and what would be right."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(f"{key}: {found}; expected {expected}")
        self.key, self.found, self.expected = key, found, expected


def operation(prop: Property, name: str, rule: Rule, *, masked: bool = False) -> Operation:
    """What ``rule`` does to one value of ``prop``. Raises Refused.

    ``masked``: nothing but a mask is ever recorded of it, so that it can only be taken out.
    """
    allowed: Collection[str] = () if masked else _CHANGES.get(prop.type, ())
    if rule.change not in ("", "remove", *allowed):
        what = "property that is masked" if masked else f"property of type {prop.type!r}"
        expected = "remove" if masked else " or ".join((*allowed, "remove", "rare"))
        raise Refused(rule.change, f"is nothing for a {what}", expected)
    if rule.rare is not None and masked:
        raise Refused("rare", "is nothing for a property that is masked", "remove")
    match rule.change:
        case "remove":
            return lambda value, secret: None
        case "hash":
            return _hashing(prop, name)
        case "keep":
            return _keeping(prop, rule.keep)
        case "buckets":
            return _bucketing(prop, rule.buckets)
        case "generalise":
            return _generalising(prop, str(rule.generalise))
    return lambda value, secret: value


def suppressed(prop: Property) -> str | None:
    """What stands in the place of a value that is not to be seen; None for nothing."""
    return "other" if prop.type == "enum" else None


def _allows(prop: Property, value: object) -> bool:
    """Whether ``value`` is one that a property, or an item of it where it is a list, may have."""
    one = msgspec.structs.replace(prop, max_items=None)
    try:
        msgspec.convert(value, value_type(one))
    except msgspec.ValidationError:
        return False
    return True


def digest(secret: Secret, name: str, value: object) -> bytes:
    """The keyed hash of a value of a property: equal values of one property have equal ones."""
    return secret(name.encode() + b"\0" + msgspec.json.encode(value))


def _hashing(prop: Property, name: str) -> Operation:
    if prop.type == "uuid":
        return lambda value, secret: str(uuid.UUID(bytes=digest(secret, name, value)[:16], version=4))

    def hashed(value: Any, secret: Secret) -> str:
        return digest(secret, name, value)[:6].hex()

    if prop.type == "string":
        for number in range(256):  # a pattern may allow some hashes and others not: that would be left to chance
            tried = hashed(number, lambda text: hmac.digest(b"", text, "sha256"))
            if not _allows(prop, tried):
                raise Refused("hash", f"gives {tried!r}, which the declaration of the property does not allow",
                              f"a declaration that allows any {PATTERNS['hash'][1]} of 0-9a-f, or remove")  # fmt: skip
    return hashed


def _keeping(prop: Property, kept: Sequence[str]) -> Operation:
    allowed = "some of " + ", ".join(prop.members) if prop.members else "values that its declaration allows"
    for value in kept:
        if not _allows(prop, value):
            raise Refused("keep", f"has {value!r}, which the property never is", allowed)
    known, otherwise = frozenset(kept), suppressed(prop)
    return lambda value, secret: value if value in known else otherwise


def _bucketing(prop: Property, edges: Sequence[float]) -> Operation:
    least = prop.min if prop.min is not None else 0
    steps: list[float] = [least, *edges] if edges[0] > least else list(edges)
    if prop.type != "number":
        steps = [int(step) if step == int(step) else step for step in steps]
    for step in steps:
        if not _allows(prop, step):
            raise Refused("buckets", f"has {step:g}, which the property never is",
                          "edges that are values of the property")  # fmt: skip

    def lower_edge(value: float, secret: Secret) -> float | None:
        ranges = bisect_right(steps, value)  # it is in none where an older version of the event allowed lower ones
        return steps[ranges - 1] if ranges else None

    return lower_edge


def _generalising(prop: Property, unit: str) -> Operation:
    units = _UNITS[prop.type]
    if unit not in units:
        raise Refused("generalise", f"found {unit!r}", f"{' or '.join(units)} for a property of type {prop.type!r}")
    if prop.type == "timestamp":
        return lambda value, secret: rounded(value, unit)
    return lambda value, secret: _release(value, units.index(unit) + 1)


def _release(version: str, parts: int) -> str | None:
    """The first ``parts`` numbers of a version."""
    found = _RELEASE.match(version)
    return ".".join(found["parts"].split(".")[:parts]) if found else None


def rounded(timestamp: str, unit: str) -> str:
    """A timestamp, rounded down to the begin of its ``unit``, in the same notation."""
    kept = _KEPT[unit]
    return timestamp[:kept] + _ZERO[kept:]


def moved_id(event_id: str, milliseconds: int, secret: Secret) -> str:
    """An event's id with another time in it; one that holds no time stays, and is no other event's.

    A UUIDv7 keeps its random part, so that an event that comes twice is still one.
    """
    found = uuid.UUID(event_id)
    if found.version == 7:
        behind = found.int & ((1 << _TIME_BITS) - 1)
        return str(uuid.UUID(int=milliseconds << _TIME_BITS | behind))
    if found.version == 4 or not found.int:
        return event_id
    return str(uuid.UUID(bytes=digest(secret, "event_id", event_id)[:16], version=4))
