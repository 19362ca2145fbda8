"""What one destination gets of a body that the gate let out. The only function that narrows after the gate."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .model import LEVELS, Level
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
        try:
            had = msgspec.json.decode(body, type=_Head).level
            level = lower(level, had)
            shape = shapes.shared(spec, event, level)
            if shape is None:
                return None
            if level != had:
                narrowed = msgspec.json.decode(body, type=shape)
                narrowed.level = level  # type: ignore[attr-defined]
                body = _encode(narrowed)
        except msgspec.ValidationError:
            return None
    if rename:
        payload = msgspec.json.decode(body)
        payload["event"] = rename.get(event, event)
        body = _encode({rename.get(name, name) if name != "event" else name: value for name, value in payload.items()})
    return body


class _Head(msgspec.Struct):
    level: Level = LEVELS[-1]
