"""What one destination gets of a body that the gate let out. The only function that narrows after the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .property import LEVELS, Level
from .shapes import Shapes, lower

_encode = msgspec.json.Encoder().encode


def project(
    shapes: Shapes, spec: str, event: str, body: bytes, *, level: Level | None = None, rename: Mapping[str, str] = {}
) -> bytes | None:
    """``body`` at ``level`` at most (None: as it is), with fields and event renamed. Pure.

    None where nothing of the event's own remains, or where the spec has changed since and no longer allows a value.
    A private body is passed without a level.
    """
    if level is not None:
        narrowed = _narrowed(shapes, spec, event, body, level)
        if narrowed is None:
            return None
        body = narrowed
    if rename:
        payload = msgspec.json.decode(body)
        payload["event"] = rename.get(event, event)
        body = _encode({rename.get(name, name) if name != "event" else name: value for name, value in payload.items()})
    return body


def _narrowed(shapes: Shapes, spec: str, event: str, body: bytes, level: Level) -> bytes | None:
    # Inside of a string its quotes would be escaped: it is the field, and mostly the level that is asked for.
    if _LEVEL[level] in body:
        return body if shapes.shared(spec, event, level) is not None else None
    try:
        had = _head.decode(body).level
        least = lower(level, had)
        shape = shapes.shared(spec, event, least)
        if shape is None or least is None:
            return None
        if least == had:
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
