"""The bodies of a spec's events as JSON Schema, draft 2020-12: what the gate lets out, and a server may take.

It is as strict as the shapes (``shapes.py``) but for a pattern that has no equivalent in ECMA-262, which is left out.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Any

from .ecmascript import ecmascript
from .model import Event, TelemetrySpec
from .property import BASE, LEVELS, MASK, Property, bucket_labels
from .shapes import ANYTHING, MOST, PATTERNS, REQUIRED

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(spec: TelemetrySpec, *, private: bool = False) -> dict[str, Any]:
    """What a shared body of any event of ``spec`` is valid against; ``private``: with what is for the user alone.

    No property of an event's own is required: consent, a level or an anonymizer may withhold any.
    """
    events = {f"{event.name}@{event.major}": _event(event, private=private) for event in spec.events}
    return {
        "$schema": DRAFT,
        "title": spec.meta.title or spec.ref,
        "description": spec.meta.description,
        "$defs": {"base": {name: _value(prop) for name, prop in BASE.items()}, **events},
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in events] or [{"not": {}}],
    }


def _event(event: Event, *, private: bool) -> dict[str, Any]:
    own = {name: prop for name, prop in event.properties.items()
           if prop.type != "json" and (private or prop.shared_at(LEVELS[-1]))}  # fmt: skip
    base: dict[str, Any] = {name: {"$ref": f"#/$defs/base/{name}"} for name in BASE}
    return {
        "type": "object",
        "description": event.semantics.what,
        **({"deprecated": True} if event.deprecated else {}),
        "properties": {
            **base, "event": {"const": event.name},
            **{name: _value(prop, masked=event.masks(name)) for name, prop in own.items()},
        },
        "required": list(REQUIRED),
        "additionalProperties": False,
    }  # fmt: skip


def _value(prop: Property, *, masked: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = {"description": prop.description} if prop.description else {}
    if prop.deprecated:
        told["deprecated"] = True
    if masked:
        return {**told, "const": MASK}
    if prop.max_items is not None:
        return {**told, "type": "array", "items": _one(prop), "maxItems": prop.max_items}
    return {**told, **_one(prop)}


def _one(prop: Property) -> dict[str, Any]:
    match prop.type:
        case "bool":
            return {"type": "boolean"}
        case "count" | "duration_ms":
            most = MOST if prop.max is None else min(prop.max, MOST)
            return {"type": "integer", "minimum": ceil(prop.min or 0), "maximum": floor(most)}
        case "number":
            return {"type": "number", "minimum": prop.min, "maximum": prop.max}
        case "enum":
            return {"enum": list(dict.fromkeys((*prop.members, "other")))}
        case "bucket":
            return {"enum": list(bucket_labels(prop.edges))}
        case "string":
            return {"type": "string", "maxLength": prop.max_length, **_pattern(prop.pattern or "")}
        case type_:
            pattern, length = PATTERNS[type_]
            return {"type": "string", "maxLength": length, **_pattern(pattern)}


def _pattern(pattern: str) -> dict[str, str]:
    if pattern == ANYTHING:
        return {}
    said = ecmascript(pattern)
    if said is None:
        return {"$comment": f"Its pattern has no equivalent in ECMA-262: {pattern}"}
    return {"pattern": f"^(?:{said})$"}
