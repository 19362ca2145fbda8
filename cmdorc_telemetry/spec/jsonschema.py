"""The bodies of a spec's events as JSON Schema, draft 2020-12: what the gate lets out, and a server may take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil, floor
from typing import Any

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
        "anyOf": [{"$ref": f"#/$defs/{_pointer(name)}"} for name in events] or [{"not": {}}],
    }


def _pointer(name: str) -> str:
    """A name as a part of a JSON pointer in a URI fragment."""
    return name.replace("~", "~0").replace("/", "~1").replace("%", "%25").replace("$", "%24")


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
            pattern = {} if prop.pattern == ANYTHING else {"pattern": f"^(?:{prop.pattern})$"}
            return {"type": "string", "maxLength": prop.max_length, **pattern}
        case type_:
            pattern_, length = PATTERNS[type_]
            return {"type": "string", "pattern": f"^(?:{pattern_})$", "maxLength": length}


def columns(spec: TelemetrySpec, dialect: str) -> str:
    """The tables that hold the events of ``spec`` in a store's SQL, one an event. Raises KeyError for no dialect."""
    types = DIALECTS[dialect]
    return "\n".join(_table(event, types) for event in spec.events)


DIALECTS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {"bool": "INTEGER", "count": "INTEGER", "number": "REAL", "timestamp": "INTEGER", "uuid": "TEXT",
               "string": "TEXT", "list": "TEXT", "quote": '"', "null": "", "end": ";"},
    "postgresql": {"bool": "BOOLEAN", "count": "BIGINT", "number": "DOUBLE PRECISION", "timestamp": "TIMESTAMPTZ",
                   "uuid": "UUID", "string": "TEXT", "list": "JSONB", "quote": '"', "null": "", "end": ";"},
    "clickhouse": {"bool": "Nullable(Bool)", "count": "Nullable(Int64)", "number": "Nullable(Float64)",
                   "timestamp": "Nullable(DateTime('UTC'))", "uuid": "Nullable(UUID)", "string": "Nullable(String)",
                   "enum": "LowCardinality(Nullable(String))", "list": "Array(String)", "quote": "`", "null": "",
                   "end": " ENGINE = ReplacingMergeTree ORDER BY (event_id);"},
}  # fmt: skip
"""Store → its word for each type."""
_ALIKE = {"duration_ms": "count", "bucket": "enum", "hash": "string", "version": "string"}


def _table(event: Event, types: Mapping[str, str]) -> str:
    quote = types["quote"]

    def column(name: str, prop: Property, *, masked: bool = False) -> str:
        kind = "string" if masked else "list" if prop.max_items is not None else _ALIKE.get(prop.type, prop.type)
        type_ = types.get(kind, types["string"])
        return f"  {quote}{name}{quote} {type_}"

    base = [column(name, prop) for name, prop in BASE.items() if name != "event"]
    own = [column(name, prop, masked=event.masks(name)) for name, prop in event.properties.items()
           if prop.type != "json" and prop.shared_at(LEVELS[-1])]  # fmt: skip
    name = re.sub(r"[^A-Za-z0-9_]", "_", event.name) + (f"_{event.major}" if event.major != 1 else "")
    return f"CREATE TABLE {quote}{name}{quote} (\n" + ",\n".join([*base, *own]) + f"\n){types['end']}\n"
