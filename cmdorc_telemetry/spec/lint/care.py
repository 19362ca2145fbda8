"""What nobody looks after: owners, reasons, descriptions, ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date

from ..model import TelemetrySpec
from .rows import Found, Lint, properties

_UNDONE = re.compile(r"\b(TODO|FIXME|XXX|TBD)\b")
_REPEATED_TWICE = re.compile(r"\((?:\\.|[^()\\])*[*+}](?:\\.|[^()\\])*\)\s*(?:[*+]|\{\d*,)")
"""A group with a repetition in it, repeated: what backtracking needs to become exponential."""
OWNER = re.compile(r"@?[A-Za-z0-9_\-]+([./][A-Za-z0-9_\-]+)*")


def _no_owner(spec: TelemetrySpec, today: date) -> Found:
    if not spec.meta.owners:
        yield "meta", "has no owners; expected at least one, such as '@team.analytics'"
    for owner in spec.meta.owners:
        if not OWNER.fullmatch(owner):
            yield "meta", f"has the owner {owner!r}; expected a name such as '@team.analytics' or 'platform.core'"


def _expired(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if event.expires is not None and event.expires <= today:
            yield f"events.{event.name}", f"expired on {event.expires}: it is no longer recorded; expected it gone"
    for at, _, _, prop in properties(spec):
        if prop.expires is not None and prop.expires <= today:
            yield at, f"expired on {prop.expires}: it is no longer recorded; expected it gone"


def _deprecated_silently(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if event.deprecated and event.expires is None:
            yield f"events.{event.name}", "is deprecated without an end; expected expires = a date"
    for at, _, _, prop in properties(spec):
        if prop.deprecated and prop.expires is None:
            yield at, "is deprecated without an end; expected expires = a date"


def _no_description(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, prop in properties(spec):
        if not prop.description:
            yield at, "has no description; expected what a person should read before they say yes"


def _no_why(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if not event.semantics.why:
            yield f"events.{event.name}", "does not say why it is collected; expected semantics.why"


def _no_who(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if not event.semantics.who:
            yield f"events.{event.name}", "does not say who causes it; expected semantics.who"


def _no_anomaly_detection(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if event.anomaly_detection is None and any(prop.type == "duration_ms" for prop in event.properties.values()):
            yield f"events.{event.name}", "has a duration, and no anomaly_detection; expected a threshold for it"


def _no_properties(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if not event.properties:
            yield f"events.{event.name}", "has no properties, and so nothing to share; expected at least one"


def _undone(spec: TelemetrySpec, today: date) -> Found:
    for at, text in _texts(spec):
        if found := _UNDONE.search(text):
            yield at, f"says {found[0]}; expected it done"


def _texts(spec: TelemetrySpec) -> Iterator[tuple[str, str]]:
    yield "meta", f"{spec.meta.title} {spec.meta.description}"
    for event in spec.events:
        semantics = event.semantics
        yield f"events.{event.name}", f"{semantics.what} {semantics.who} {semantics.why}"
    for at, _, _, prop in properties(spec):
        yield at, prop.description


def _slow_pattern(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, prop in properties(spec):
        if prop.pattern is not None and _REPEATED_TWICE.search(prop.pattern):
            yield (
                at,
                (
                    f"pattern {prop.pattern!r} repeats a group in which something is repeated already: to find that a "
                    "value does not match may take for ever; expected one repetition, such as [a-z.]+"
                ),
            )


LINTS: Mapping[str, Lint] = {
    "no-owner": Lint(_no_owner, "error", "Nobody to ask."),
    "expired": Lint(_expired, "error", "What is no longer recorded."),
    "endless-deprecation": Lint(_deprecated_silently, "warning", "Deprecated, and no date when it ends."),
    "no-description": Lint(_no_description, "warning", "A property that does not say what it is."),
    "no-why": Lint(_no_why, "warning", "An event that does not say why it is collected."),
    "no-who": Lint(_no_who, "warning", "An event that does not say who causes it."),
    "no-anomaly-detection": Lint(_no_anomaly_detection, "warning", "A duration that nobody watches."),
    "no-properties": Lint(_no_properties, "warning", "An event with nothing to share."),
    "slow-pattern": Lint(_slow_pattern, "error", "A pattern on which a value can hold up its caller."),
    "undone": Lint(_undone, "warning", "A text that is not finished."),
}  # fmt: skip
