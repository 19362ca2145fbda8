"""ContractSpec's camelCase JSON: read in both of its spellings, and written without loss.

The older spelling says ``name`` and whole-numbered versions, the newer ``key`` and ``"1.0.0"``. A spec keeps the
document that it was read from (``origin``): written again, what was not changed is as it was, unknown keys and
explicit defaults included. What that format has no words for, such as levels and bounds, is in ``x-cmdorc-telemetry``.
"""

# Annotations are evaluated here: msgspec would have to evaluate them one by one.

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct, field

from ..decoding import decode
from ..errors import SpecError
from .model import Config, Event, Meta, TelemetrySpec
from .property import Property
from .shapes import ANYTHING
from .versions import Version, plain

T = TypeVar("T")

EXTENSION = "x-cmdorc-telemetry"
TEXT_LENGTH = 1000
"""What bounds a ``string`` there: that format bounds none."""
NUMBER = float(2**53)
"""Likewise a ``number``."""

_TYPES = {"bool": "boolean", "count": "number", "duration_ms": "number", "number": "number", "json": "json",
          "timestamp": "timestamp"}  # fmt: skip
_ONLY: Mapping[str, dict[str, Any]] = {
    "string": {"type": "string", "pattern": ANYTHING, "max_length": TEXT_LENGTH},
    "number": {"type": "number", "min": -NUMBER, "max": NUMBER},
    "boolean": {"type": "bool"}, "timestamp": {"type": "timestamp"}, "json": {"type": "json"},
}  # fmt: skip
"""What a property of their type says in ours, where nothing more is said."""


class _Part(Struct, kw_only=True, rename="camel"):
    """Unknown keys are allowed everywhere: the origin keeps them."""


class _Named(_Part, kw_only=True):
    name: str = ""
    key: str = ""
    version: Version = 1

    def identity(self, where: object, at: str) -> str:
        """What it is called, in whichever spelling. Raises SpecError."""
        called = self.key or self.name
        if not called:
            raise SpecError(where, at, "has neither 'key' nor 'name'", "one of them")
        return called


class _Meta(_Named, kw_only=True):
    title: str = ""
    description: str = ""
    domain: str = ""
    owners: list[str] = []
    tags: list[str] = []
    stability: Literal["idea", "in_creation", "experimental", "beta", "stable", "deprecated"] = "experimental"


class _Property(_Part, kw_only=True):
    type: Literal["string", "number", "boolean", "timestamp", "json"]
    required: bool = False
    pii: bool = False
    redact: bool = False
    description: str = ""
    extension: dict[str, Any] = field(default_factory=dict, name=EXTENSION)


class _Semantics(_Part, kw_only=True):
    what: str
    who: str = ""
    why: str = ""


class _Retention(_Part, kw_only=True):
    days: int
    policy: Literal["archive", "delete"] = "delete"


class _Sampling(_Part, kw_only=True):
    rate: float
    conditions: list[str] = []
    extension: dict[str, Any] = field(default_factory=dict, name=EXTENSION)


class _Threshold(_Part, kw_only=True):
    metric: str
    min: float | None = None
    max: float | None = None


class _Anomaly(_Part, kw_only=True):
    enabled: bool
    minimum_sample: int = 1
    thresholds: list[_Threshold] = []
    actions: list[Literal["alert", "log", "trigger_regen"]] = []


class _Event(_Named, kw_only=True):
    semantics: _Semantics
    privacy: Literal["public", "internal", "pii", "sensitive"]
    properties: dict[str, _Property]
    retention: _Retention | None = None
    sampling: _Sampling | None = None
    anomaly_detection: _Anomaly | None = None
    tags: list[str] = []
    extension: dict[str, Any] = field(default_factory=dict, name=EXTENSION)


class _Defaults(_Part, kw_only=True):
    enabled: bool = True
    check_interval_ms: int = 60_000


class _Provider(_Part, kw_only=True):
    type: Literal["posthog", "segment", "opentelemetry", "internal"]
    config: dict[str, Any] = {}


class _Config(_Part, kw_only=True):
    default_retention_days: int = 90
    default_sampling_rate: float = 1.0
    providers: list[_Provider] = []
    anomaly_detection: _Defaults = field(default_factory=_Defaults)


class _Document(_Part, kw_only=True):
    meta: _Meta
    events: list[_Event]
    config: _Config = field(default_factory=_Config)
    extension: dict[str, Any] = field(default_factory=dict, name=EXTENSION)


# Two threads that are the first to use a type at the same time crash msgspec (0.22): it is complete from here on.
msgspec.json.Decoder(_Document)


# -- reading -----------------------------------------------------------------------------------------------------------


def read(document: Any, where: object) -> TelemetrySpec:
    """The spec in a decoded JSON document. Raises SpecError with file, path, found and expected."""
    found = decode(document, _Document, where, error=SpecError)

    def part(table: Mapping[str, Any], type_: type[T], key: str) -> T:
        return decode(table, type_, where, key=key, error=SpecError)

    parts: dict[str, Any] = {**found.extension, "origin": document}
    parts["meta"] = part(_meta(found.meta, where), Meta, "meta")
    parts["events"] = [part(_event(event, where, f"events[{number}]"), Event, f"events[{number}]")
                       for number, event in enumerate(found.events)]  # fmt: skip
    parts["config"] = part(_config(found.config), Config, "config")
    return part(parts, TelemetrySpec, "")


def _meta(meta: _Meta, where: object) -> dict[str, Any]:
    told = {name: value for name, value in _plain(meta).items() if name != "key"}
    return {**told, "name": meta.identity(where, "meta"), "version": plain(meta.version)}


def _event(event: _Event, where: object, at: str) -> dict[str, Any]:
    table: dict[str, Any] = {
        **event.extension,
        "name": event.identity(where, at), "version": plain(event.version), "privacy": event.privacy,
        "tags": event.tags,
        "semantics": _plain(event.semantics),
        "properties": {name: _property(prop) for name, prop in event.properties.items()},
    }  # fmt: skip
    if event.retention is not None:
        table["retention"] = _plain(event.retention)
    if event.sampling is not None:
        sampling = event.sampling
        table["sampling"] = {**sampling.extension, "rate": sampling.rate, "conditions": sampling.conditions}
    if (anomaly := event.anomaly_detection) is not None:
        table["anomaly_detection"] = {
            "enabled": anomaly.enabled, "minimum_sample": anomaly.minimum_sample, "actions": anomaly.actions,
            "thresholds": [_plain(threshold) for threshold in anomaly.thresholds],
        }  # fmt: skip
    return table


def _property(prop: _Property) -> dict[str, Any]:
    bounds: dict[str, Any] = {} if "type" in prop.extension else dict(_ONLY[prop.type])
    told = {"required": prop.required, "pii": prop.pii, "redact": prop.redact, "description": prop.description}
    return {**bounds, **told, **prop.extension}


def _config(config: _Config) -> dict[str, Any]:
    return {
        "default_retention_days": config.default_retention_days,
        "default_sampling_rate": config.default_sampling_rate,
        "providers": [_plain(provider) for provider in config.providers],
        "anomaly_detection": config.anomaly_detection.enabled,
        "check_interval_ms": config.anomaly_detection.check_interval_ms,
    }


def _plain(part: _Part) -> dict[str, Any]:
    return {name: value for name in part.__struct_fields__ if (value := getattr(part, name)) is not None}


# -- writing -----------------------------------------------------------------------------------------------------------


def write(spec: TelemetrySpec) -> dict[str, Any]:
    """``spec`` as a document, in the spelling of its origin; a spec of any other origin in the newer one."""
    if spec.origin is None:
        return _rendered(spec, older=False)
    older = "key" not in spec.origin["meta"]
    then = _rendered(read(spec.origin, "origin"), older=older)
    merged: dict[str, Any] = _merged(spec.origin, then, _rendered(spec, older=older))
    return merged


def _rendered(spec: TelemetrySpec, *, older: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "meta": {**_renamed(spec.meta, older=older), "owners": list(spec.meta.owners), "tags": list(spec.meta.tags),
                 "stability": spec.meta.stability, "description": spec.meta.description},
        "config": _defaults(spec.config),
        "events": [_event_document(spec, event, older=older) for event in spec.events],
    }  # fmt: skip
    told = spec.told()
    rest = {name: told[name] for name in ("groups", "context", "operations", "workflows", "waivers") if name in told}
    return {**document, EXTENSION: rest} if rest else document


def _renamed(part: Meta | Event, *, older: bool) -> dict[str, Any]:
    """The keys that both spellings have, of what a part says beyond its defaults."""
    told = part.told()
    name, version = told.pop("name"), part.version
    if not older and isinstance(version, int):
        version = f"{version}.0.0"
    return {"name" if older else "key": name, **told, "version": version}


def _event_document(spec: TelemetrySpec, event: Event, *, older: bool) -> dict[str, Any]:
    told = _renamed(event, older=older)
    properties = spec.own_properties(event)
    ours = {name: told.pop(name) for name in ("groups", "rank", "expires", "deprecated", "replaced_by") if name in told}
    told["privacy"] = event.privacy
    told["properties"] = {name: _property_document(prop) for name, prop in properties.items()}
    if (sampling := event.sampling) is not None:
        more = {name: value for name in ("always", "by") if (value := told["sampling"].pop(name, None))}
        told["sampling"] = {**told["sampling"], "rate": sampling.rate, **({EXTENSION: more} if more else {})}
    if (anomaly := told.pop("anomaly_detection", None)) is not None:
        assert event.anomaly_detection is not None
        told["anomalyDetection"] = {
            "enabled": event.anomaly_detection.enabled,
            "minimumSample": event.anomaly_detection.minimum_sample,
            "actions": list(event.anomaly_detection.actions),
            **({"thresholds": anomaly["thresholds"]} if "thresholds" in anomaly else {}),
        }
    return {**told, **({EXTENSION: ours} if ours else {})}


def _property_document(prop: Property) -> dict[str, Any]:
    told = prop.told()
    theirs: dict[str, Any] = {}
    for name in ("required", "pii", "redact", "description"):
        if name in told:
            theirs[name] = told.pop(name)
    type_ = _TYPES.get(prop.type, "string" if prop.max_items is None else "json")
    return {"type": type_, **theirs, **({} if told == _ONLY.get(type_) else {EXTENSION: told})}


def _defaults(config: Config) -> dict[str, Any]:
    return {
        "defaultRetentionDays": config.default_retention_days,
        "defaultSamplingRate": config.default_sampling_rate,
        "providers": [{"type": provider.type, "config": provider.config} for provider in config.providers],
        "anomalyDetection": {"enabled": config.anomaly_detection, "checkIntervalMs": config.check_interval_ms},
    }


def _merged(origin: Any, then: Any, now: Any) -> Any:
    """``origin``, which was rendered as ``then``, with what is otherwise in ``now``: a three-way merge."""
    if then == now:
        return origin
    if isinstance(origin, dict) and isinstance(then, dict) and isinstance(now, dict):
        merged = {name: value for name, value in origin.items() if name in now or name not in then}
        for name, value in now.items():
            if name not in then:
                merged[name] = value
            elif value != then[name]:
                merged[name] = _merged(origin.get(name, {} if isinstance(value, dict) else None), then[name], value)
        return merged
    if isinstance(origin, list) and isinstance(then, list) and isinstance(now, list) and len(origin) == len(then):
        known = {_identity(each): number for number, each in enumerate(then)}
        return [_merged(origin[at], then[at], each) if (at := known.get(_identity(each), -1)) >= 0 else each
                for each in now]  # fmt: skip
    return now


def _identity(item: Any) -> object:
    """What tells the parts of a list apart."""
    if isinstance(item, dict):
        return item.get("key", item.get("name", item.get("metric", item.get("type")))), str(item.get("version"))
    return repr(item)
