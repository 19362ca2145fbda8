"""A spec made of answers, and written as TOML with a comment beside each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import Table

from ..decoding import decode
from ..errors import SpecError
from ..spec.documents import toml_table
from ..spec.model import TelemetrySpec
from .script import Answers

_META = ("name", "version", "title", "description", "domain", "owners", "tags", "stability")
_CONFIG = ("default_retention_days", "default_sampling_rate", "anomaly_detection", "check_interval_ms")
_PROPERTY = ("type", "members", "edges", "min", "max", "pattern", "max_length", "level", "pii", "redact", "required",
             "description")  # fmt: skip
_EVENT = ("name", "version", "privacy", "tags")
_WHOLE = ("default_retention_days", "check_interval_ms", "days", "max_length", "minimum_sample")
_NEVER_LEFT_OUT = ("default_sampling_rate", "anomaly_detection", "rate", "min", "max")


def spec_of(given: Answers) -> TelemetrySpec:
    """The spec that the answers say."""
    providers = [{"type": given[f"{path}.type"], "config": given[f"{path}.config"]}
                 for path in _list(given, "config.providers")]  # fmt: skip
    table = {
        "meta": _part(given, "meta", _META),
        "config": {**_part(given, "config", _CONFIG), "providers": providers},
        "events": [_event(given, path) for path in _list(given, "events")],
        "waivers": list(_waivers(given)),
    }
    return decode(table, TelemetrySpec, "answers", error=SpecError)


def _list(given: Answers, path: str) -> list[str]:
    """The paths of the entries of a list."""
    numbers = {int(each[len(path) + 1 :].partition(".")[0]) for each in given if each.startswith(f"{path}.")}
    asked = [f"{path}.{number}" for number in sorted(numbers)]
    return [each for each in asked if any(key.startswith(f"{each}.") and key != f"{each}.more" for key in given)]


def _part(given: Answers, path: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The answers that say something."""
    told = {}
    for name in names:
        value = given.get(f"{path}.{name}")
        if value in (None, "", [], False) and (value is None or name not in _NEVER_LEFT_OUT):
            continue
        told[name] = int(value) if name in _WHOLE else value
    return told


def _event(given: Answers, at: str) -> dict[str, Any]:
    event = _part(given, at, _EVENT)
    event["semantics"] = _part(given, f"{at}.semantics", ("what", "who", "why"))
    event["properties"] = {given[f"{path}.name"]: _part(given, path, _PROPERTY)
                           for path in _list(given, f"{at}.properties")}  # fmt: skip
    if given[f"{at}.retention.days"] is not None:
        event["retention"] = _part(given, f"{at}.retention", ("days", "policy"))
    if given[f"{at}.sampling.rate"] is not None:
        event["sampling"] = _part(given, f"{at}.sampling", ("rate", "conditions", "always"))
    watch = f"{at}.anomaly_detection"
    if given.get(f"{watch}.enabled"):
        thresholds = [_part(given, path, ("metric", "min", "max")) for path in _list(given, f"{watch}.thresholds")]
        event["anomaly_detection"] = {**_part(given, watch, ("minimum_sample", "actions")), "thresholds": thresholds}
    return event


def _waivers(given: Answers) -> list[dict[str, str]]:
    waivers = []
    for event in _list(given, "events"):
        for path in _list(given, f"{event}.properties"):
            if reason := given.get(f"{path}.harmless"):
                at = f"events.{given[f'{event}.name']}.properties.{given[f'{path}.name']}"
                waivers.append({"lint": "personal-name", "at": at, "reason": reason})
    return waivers


# -- as a file ---------------------------------------------------------------------------------------------------------

_ABOUT = {
    "meta": "Who collects, and whom to ask.",
    "config": "What holds for every event that does not say otherwise.",
    "semantics": "What a person reads before they say yes.",
    "retention": "For how long a server may keep it.",
    "sampling": "Which of the events are sent; on the machine itself all are counted.",
    "anomaly_detection": "When its statistics are unusual, and what to do then.",
    "properties": "What of it is recorded: nothing that is not here.",
}
"""Part → what it is for. In this order the parts of an event are written."""
_UNSAID = "A person has to write this: what is observed does not say it."


def commented(spec: TelemetrySpec, notes: Mapping[str, str] | None = None, *, check: str = "spec lint") -> str:
    """``spec`` as TOML with comments; ``notes``: path of a property → what a person should look at; ``check``: the
    command that checks it.

    Its defaults for all events are written out, also where they are as by default.
    """
    table = toml_table(spec)
    config = {name: getattr(spec.config, name) for name in _CONFIG if name != "check_interval_ms"}
    document = tomlkit.document()
    title = "".join(char for char in " ".join((spec.meta.title or spec.meta.name).split()) if char.isprintable())
    document.add(tomlkit.comment(f"What {title} may record."))
    document.add(tomlkit.comment(f"Checked by: {check} FILE"))
    for key, part in {"meta": table.pop("meta"), "config": {**config, **table.pop("config", {})}}.items():
        document.add(key, tomlkit.item(part))
        document[key].comment(_ABOUT[key])
    events = tomlkit.aot()
    for event in table.pop("events", ()):
        events.append(_event_table(event, notes or {}))
    if events:
        document.add("events", events)
    for key, part in table.items():
        document.add(key, tomlkit.item(part))
    return tomlkit.dumps(document)


def _event_table(event: dict[str, Any], notes: Mapping[str, str]) -> Table:
    table = tomlkit.table()
    for key, value in event.items():
        if key not in _ABOUT:
            table.add(key, value)
    for key, about in _ABOUT.items():
        if key in event:
            part = tomlkit.table(is_super_table=False)
            for name, value in event[key].items():
                part.add(name, value)
            part.comment(about)
            table.add(key, part)
    if not event["semantics"]["what"]:
        table["semantics"]["what"].comment(_UNSAID)
    for name, prop in table["properties"].items():
        if note := notes.get(f"events.{event['name']}.properties.{name}"):
            prop.comment(note)
    return table
