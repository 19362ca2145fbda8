"""The parts of the OpenAPI page that FastAPI cannot know: bodies that msgspec decodes, and the answers."""

from __future__ import annotations

from typing import Any

import msgspec

from cmdorc_telemetry.spec import wire_shape

from .drops import HEADER
from .reports import Answer
from .settings import Settings

_REFS = "#/components/schemas/{name}"
_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
_PROBLEM = {"application/json": {"schema": {"type": "object", "properties": {"message": {"type": "string"}}}}}


def _answer_schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    (schema,), components = msgspec.json.schema_components([Answer], ref_template=_REFS)
    return schema, components


def components() -> dict[str, Any]:
    """The schemas that :func:`report` refers to, by name."""
    return _answer_schemas()[1]


def report(settings: Settings) -> dict[str, Any]:
    """What a report's request and answers look like, for the specs of ``settings``."""
    events = []
    for spec in settings.registry:
        for event in spec.events:
            shape = wire_shape(event, None if settings.accept_private else "debug")
            _, found = msgspec.json.schema_components([shape], ref_template=_REFS)
            (schema,) = found.values()
            events.append({**schema, "title": f"{spec.ref} {event.name}", "description": event.semantics.what})
    answer = {"content": {"application/json": {"schema": _answer_schemas()[0]}}}
    return {
        "parameters": [
            {"name": HEADER, "in": "header", "schema": {"type": "string"},
             "description": "The client's cumulative losses: epoch=…; REASON=COUNT; …"},
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": events}},
                "application/x-ndjson": {"schema": {"type": "string", "description": "One event a line; "
                                         "Content-Encoding gzip or zstd"}},
            },
        },
        "responses": {
            "200": {"description": "Stored; see each event's status", **answer},
            "400": {"description": "Unreadable", "content": _PROBLEM},
            "408": {"description": "The body took too long", "content": _PROBLEM},
            "413": {"description": "Too large, or too many events: split", "content": _PROBLEM},
            "415": {"description": "Content type or encoding not taken", "content": _PROBLEM},
            "422": {"description": "The single event is invalid", **answer},
            "429": {"description": "This install sends too much", "headers": _RETRY, **answer},
            "503": {"description": "The store cannot take it now", "headers": _RETRY, "content": _PROBLEM},
        },
    }  # fmt: skip
