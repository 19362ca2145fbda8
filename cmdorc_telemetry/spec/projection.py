"""What one destination gets of a body that the gate let out. The only function that narrows after the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .property import LEVELS, Level
from .shapes import Shapes, lower
from .wishes import EVERYTHING, FIXED, Rule

_encode = msgspec.json.Encoder().encode


def project(
    shapes: Shapes, spec: str, event: str, body: bytes, *, level: Level | None = None, rename: Mapping[str, str] = {},
    withheld: frozenset[str] = frozenset(), wanted: Rule = EVERYTHING,
) -> bytes | None:  # fmt: skip
    """``body`` at ``level`` at most (None: as it is), as far as it is ``wanted``, with fields and event renamed. Pure.

    ``withheld`` are fields that it must not have. None where nothing of the event's own remains, or nothing that tells
    events apart, or where the spec has changed since and no longer allows a value. A private body is passed without a
    level.
    """
    if level is not None:
        narrowed = _narrowed(shapes, spec, event, body, level, withheld)
        if narrowed is None:
            return None
        body = narrowed
    declared = shapes.event(spec, event)
    less = wanted.narrow(declared[1] if declared else None, body)
    if less is None:
        return None
    body = less
    if rename:
        payload = msgspec.json.decode(body)
        payload["event"] = rename.get(event, event)
        body = _encode({rename.get(name, name) if name != "event" else name: value for name, value in payload.items()})
    return body


def _narrowed(
    shapes: Shapes, spec: str, event: str, body: bytes, level: Level, withheld: frozenset[str]
) -> bytes | None:  # fmt: skip
    if not withheld.isdisjoint(FIXED):
        return None
    # Inside of a string its quotes would be escaped: it is the field.
    clean = not any(f'"{name}":'.encode() in body for name in withheld)
    if clean and _LEVEL[level] in body:  # mostly it is the level that is asked for
        return body if shapes.shared(spec, event, level, withheld) is not None else None
    try:
        had = _head.decode(body).level
        least = lower(level, had)
        shape = shapes.shared(spec, event, least, withheld)
        if shape is None or least is None:
            return None
        if clean and least == had:
            return body
        narrowed: Any = msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError:
        return None
    narrowed.level = least
    return _encode(narrowed)


class _Head(msgspec.Struct):
    level: Level = LEVELS[-1]


_head = msgspec.json.Decoder(_Head)
_LEVEL = {level: f'"level":"{level}"'.encode() for level in LEVELS}
