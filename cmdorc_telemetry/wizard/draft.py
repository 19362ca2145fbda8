"""A spec made of answers, and written as TOML with a comment above each part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import AoT, Table

from ..decoding import decode
from ..errors import SpecError
from ..spec.documents import dump_toml
from ..spec.model import TelemetrySpec
from .script import Answers, script

_FIELDS = ("version", "title", "description", "domain", "owners", "tags", "stability")


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A file of answers, nested like the spec, as the script keeps them: a list that goes on says so by itself."""
    given: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        if (isinstance(value, Mapping) and key != "config") or (prefix == "" and isinstance(value, Mapping)):
            given.update(flattened(value, f"{path}."))
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            for number, each in enumerate(value):
                given.update(flattened(each, f"{path}.{number}."))
                given[f"{path}.{number}.more"] = True
        else:
            given[path] = value
    return given


def completed(answers: Mapping[str, Any], where: object) -> dict[str, Any]:
    """``answers`` of a file, with the defaults of what it leaves out. Raises SpecError for what is wrong in it."""
    given: dict[str, Any] = {}
    left = flattened(answers)
    for question in script(given):
        answer = left.pop(question.path, question.default)
        if fault := question.fault(answer):
            raise SpecError(where, question.path, fault)
        given[question.path] = answer
    left = {path: value for path, value in left.items() if not path.endswith(".more")}
    if left:
        raise SpecError(where, next(iter(left)), "is no answer to any question", "the paths that the wizard asks for")
    return given


def spec_of(given: Answers) -> TelemetrySpec:
    """The spec that the answers say. Raises SpecError where they contradict each other."""
    meta = {"name": given["meta.name"], **_part(given, "meta.", _FIELDS), "version": _version(given["meta.version"])}
    config: dict[str, Any] = {
        "default_retention_days": int(given["config.default_retention_days"]),
        "default_sampling_rate": float(given["config.default_sampling_rate"]),
        "anomaly_detection": given["config.anomaly_detection"],
        **_part(given, "config.", ("check_interval_ms",)),
        "providers": [{"type": given[f"{path}.type"], "config": json.loads(given[f"{path}.config"])}
                      for path in _list(given, "config.providers", "type")],
    }  # fmt: skip
    events = [_event(given, path) for path in _list(given, "events", "name")]
    return decode({"meta": meta, "config": config, "events": events}, TelemetrySpec, "answers", error=SpecError)


def _list(given: Answers, path: str, key: str) -> list[str]:
    count = 0
    while f"{path}.{count}.{key}" in given:
        count += 1
    return [f"{path}.{number}" for number in range(count)]


def _part(given: Answers, prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The answers that say something."""
    return {name: value for name in names if (value := given.get(prefix + name)) not in (None, "", [], False)}


def _version(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _event(given: Answers, at: str) -> dict[str, Any]:
    event: dict[str, Any] = {
        "name": given[f"{at}.name"], "version": _version(given[f"{at}.version"]),
        "semantics": _part(given, f"{at}.", ("what", "who", "why")), **_part(given, f"{at}.", ("privacy", "tags")),
        "properties": {given[f"{path}.name"]: _property(given, path)
                       for path in _list(given, f"{at}.properties", "name")},
    }  # fmt: skip
    if given.get(f"{at}.retention_days") is not None:
        event["retention"] = {"days": int(given[f"{at}.retention_days"]), "policy": given[f"{at}.retention_policy"]}
    if given.get(f"{at}.sampling_rate") is not None:
        told = {name: [text] for name in ("conditions", "always") if (text := given[f"{at}.sampling_{name}"].strip())}
        event["sampling"] = {"rate": float(given[f"{at}.sampling_rate"]), **told}
    if given.get(f"{at}.anomalies"):
        thresholds = [_part_or_zero(given, f"{path}.") for path in _list(given, f"{at}.thresholds", "metric")]
        event["anomaly_detection"] = {
            "minimum_sample": int(given[f"{at}.minimum_sample"]), "thresholds": thresholds,
            "actions": [given[f"{at}.actions"]],
        }  # fmt: skip
    return event


def _part_or_zero(given: Answers, prefix: str) -> dict[str, Any]:
    return {name: value for name in ("metric", "min", "max") if (value := given.get(prefix + name)) is not None}


def _property(given: Answers, at: str) -> dict[str, Any]:
    names = ("type", "members", "pattern", "level", "pii", "redact", "required", "description")
    told = _part(given, f"{at}.", names)
    if given["" + f"{at}.type"] == "bucket":
        told["edges"] = [float(each) for each in given[f"{at}.edges"]]
    if given[f"{at}.type"] == "string":
        told["max_length"] = int(given[f"{at}.max_length"])
    if given[f"{at}.type"] == "number":
        told.update(min=float(given[f"{at}.min"]), max=float(given[f"{at}.max"]))
    return told


_COMMENTS = {
    "meta": "Who collects, and whom to ask.",
    "config": "What holds for every event that does not say otherwise.",
    "semantics": "What a person reads before they say yes.",
    "properties": "What of it is recorded: nothing that is not here.",
    "retention": "For how long a server may keep it.",
    "sampling": "Which of the events are sent; on the machine itself all are counted.",
    "anomaly_detection": "When its statistics are unusual, and what to do then.",
}


def commented(spec: TelemetrySpec, notes: Mapping[str, str] | None = None) -> str:
    """``spec`` as TOML with comments; ``notes``: path of a property → what a person should look at."""
    document = tomlkit.parse(dump_toml(spec))
    for key in ("meta", "config"):
        _above(document, key)
    events = document.get("events")
    for event in events if isinstance(events, AoT) else ():
        for key in ("semantics", "retention", "sampling", "properties", "anomaly_detection"):
            _above(event, key)
        for name, prop in event.get("properties", {}).items():
            if note := (notes or {}).get(f"events.{event['name']}.properties.{name}"):
                prop.comment(note)
    head = f"# What {spec.meta.title or spec.meta.name} may record. Checked by: cmdorc telemetry spec lint FILE\n\n"
    return head + tomlkit.dumps(document)


def _above(table: Any, key: str) -> None:
    found = table.get(key)
    if isinstance(found, Table):
        found.comment(_COMMENTS[key])
