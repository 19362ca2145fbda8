"""Names that say nothing, mislead, or are nearly the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from ..metrics import NUMBERS
from ..model import TelemetrySpec
from .rows import Found, Lint, properties

MANY_MEMBERS = 100
_VAGUE = ("data", "info", "value", "misc", "other", "stuff", "thing", "object", "payload", "meta", "extra", "details")
_UNITS = {"ms": "duration_ms", "millis": "duration_ms", "milliseconds": "duration_ms"}

_HAPPENED = frozenset(
    ("begun", "bought", "broken", "brought", "built", "chosen", "cut", "done", "drawn", "driven", "fallen", "found",
     "given", "gone", "held", "kept", "left", "lost", "made", "met", "paid", "put", "read", "run", "seen", "sent",
     "set", "shown", "shut", "sold", "spent", "split", "step", "stuck", "sunk", "taken", "thrown", "told", "won",
     "written")
)  # fmt: skip
"""Words that say that something happened, and do not end in -ed; and ``step``, one of which was taken."""


def _vague_name(spec: TelemetrySpec, today: date) -> Found:
    for at, _, name, _ in properties(spec):
        if name.lower() in _VAGUE:
            yield at, "could be anything; expected a name that says what it is"


def _unit_mismatch(spec: TelemetrySpec, today: date) -> Found:
    for at, _, name, prop in properties(spec):
        unit = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().rpartition("_")[2]
        if prop.type in NUMBERS and prop.type != "duration_ms" and unit in _UNITS:
            yield at, f"is called a duration, and of type {prop.type!r}; expected 'duration_ms'"
        elif prop.type == "duration_ms" and unit in ("s", "sec", "seconds", "minutes", "hours", "us", "ns"):
            yield at, f"is in milliseconds, and called {name!r}"


def _common_prefix(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        own = spec.own_properties(event)
        heads = {name.partition("_")[0] for name in own if "_" in name}
        if len(own) >= 3 and len(heads) == 1 and all("_" in name for name in own):
            yield (
                f"events.{event.name}",
                f"has properties that all begin with {heads.pop() + '_'!r}; expected it left out",
            )


def _near_names(spec: TelemetrySpec, today: date) -> Found:
    groups = [("events", [event.name for event in spec.events])]
    groups += [(f"events.{event.name}.properties", list(event.properties)) for event in spec.events]
    for at, names in groups:
        seen: dict[str, str] = {}
        for name in names:
            first = seen.setdefault(re.sub(r"[^a-z0-9]", "", name.lower()), name)
            if first != name:
                yield f"{at}.{name}", f"is nearly called like {first!r}; expected names that differ in a letter"


def _mixed_style(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        own = [name for name in spec.own_properties(event) if not name.startswith("$")]
        snake, camel = [name for name in own if "_" in name], [name for name in own if re.search("[a-z][A-Z]", name)]
        if snake and camel:
            yield f"events.{event.name}", f"has names in two styles, {snake[0]!r} and {camel[0]!r}; expected one"


def _not_past(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", event.name).lower())
        if not any(word.endswith("ed") or word in _HAPPENED for word in words):
            yield f"events.{event.name}", "does not name what happened; expected a past tense, such as 'paid'"


def _enum_size(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, prop in properties(spec):
        if prop.type == "enum" and len(prop.members) > MANY_MEMBERS:
            yield at, f"has {len(prop.members)} members; expected at most {MANY_MEMBERS}, or a bucket"
        elif prop.type == "enum" and len(set(prop.members)) < len(prop.members):
            yield at, "has a member twice"
        elif prop.type == "enum" and "other" in prop.members:
            yield at, "has the member 'other', which every enum has"


LINTS: Mapping[str, Lint] = {
    "vague-name": Lint(_vague_name, "warning", "A name that says nothing."),
    "unit-mismatch": Lint(_unit_mismatch, "warning", "A name whose unit is not that of its type."),
    "common-prefix": Lint(_common_prefix, "warning", "A prefix that all properties of an event have."),
    "near-names": Lint(_near_names, "warning", "Two names that are nearly the same."),
    "mixed-style": Lint(_mixed_style, "warning", "Names in two styles."),
    "not-past": Lint(_not_past, "warning", "An event that does not name what happened."),
    "enum-members": Lint(_enum_size, "warning", "Members that are too many, twice there, or there anyway."),
}  # fmt: skip
