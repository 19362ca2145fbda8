"""What one destination gets of a body that the gate let out. The only function that narrows after the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .property import LEVELS, Level
from .sampling import Sampler, sampled
from .shapes import Kind, Shapes, lower
from .wishes import EVERYTHING, FIXED, Rule

_encode = msgspec.json.Encoder().encode


def project(
    shapes: Shapes, spec: str, event: str, body: bytes, *, level: Level | None = None, rename: Mapping[str, str] = {},
    withheld: frozenset[str] = frozenset(), wanted: Rule = EVERYTHING, version: int | None = None, subject: str = "",
    anew: bool = False,
) -> bytes | None:  # fmt: skip
    """``body`` at ``level`` at most (None: as it is), as far as it is ``wanted``, with fields and event renamed. Pure.

    ``withheld`` are fields that it must not have; ``subject`` is whom a share is taken by; ``anew``: its spec may have
    changed since it was made, so that nothing is taken for granted. None where nothing of the event's own remains, or
    nothing that tells events apart, or where its spec no longer allows a value. A private body is passed without a
    level.
    """
    if level is not None:
        narrowed = _narrowed(shapes, (spec, event, version), body, level, withheld, subject, anew)
        if narrowed is None:
            return None
        body = narrowed
    declared = shapes.event(spec, event, version)
    less = wanted.narrow(declared[1] if declared else None, body, subject)
    if less is None:
        return None
    body = less
    if rename:
        body = _encode(_renamed(msgspec.json.decode(body), event, rename))
    return body


def _renamed(payload: dict[str, Any], event: str, rename: Mapping[str, str]) -> dict[str, Any]:
    """``payload`` with other names; a field whose new name is another one's keeps its own."""
    payload["event"] = rename.get(event, event)
    renamed: dict[str, Any] = {}
    for name, value in payload.items():
        new = name if name == "event" else rename.get(name, name)
        taken = new in renamed or (new != name and new in payload and new not in rename)
        renamed[name if taken else new] = value
    return renamed


def _narrowed(
    shapes: Shapes, kind: Kind, body: bytes, level: Level, withheld: frozenset[str], subject: str, anew: bool
) -> bytes | None:  # fmt: skip
    spec, event, version = kind
    withheld |= shapes.expired(kind)
    if not withheld.isdisjoint(FIXED):
        return None
    # Inside of a string its quotes would be escaped: it is the field.
    clean = not anew and not any(f'"{name}":'.encode() in body for name in withheld)
    if clean and _LEVEL[level] in body:  # mostly it is the level that is asked for
        return body if shapes.shared(spec, event, level, withheld, version) is not None else None
    try:
        had = _head.decode(body).level
        least = lower(level, had)
        shape = shapes.shared(spec, event, least, withheld, version)
        if shape is None or least is None:
            return None
        if clean and least == had:
            return body
        narrowed: Any = msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError:
        return None
    narrowed.level = least
    sampler = shapes.sampler(*kind)
    if sampler is not None and sampler.asks:
        return _sampled_again(sampler, msgspec.to_builtins(narrowed), subject)
    return _encode(narrowed)


def _sampled_again(sampler: Sampler, payload: dict[str, Any], subject: str) -> bytes | None:
    """A body that tells less than when it was sampled: that it is there must not tell it either."""
    share, had = sampler.share(payload), payload.get("sampling_rate", 1.0)
    if share is None or (share < had and not sampled(subject or payload["event_id"], share, had)):
        return None
    if share < had:
        payload["sampling_rate"] = share
    return _encode(payload)


class _Head(msgspec.Struct):
    level: Level = LEVELS[-1]


_head = msgspec.json.Decoder(_Head)
_LEVEL = {level: f'"level":"{level}"'.encode() for level in LEVELS}
