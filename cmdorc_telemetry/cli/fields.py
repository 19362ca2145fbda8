"""``show-payload`` on a terminal: the body laid out, why each field is in it, and what was withheld, by whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import DestinationConfig
from ..consent import waiting_fields
from ..spec import BASE, LEVELS, Event, Level, Property, TelemetrySpec
from ..types import Row
from .machine import Machine
from .screen import Screen


@dataclass(frozen=True)
class Shown:
    """A body, and what is known of it."""

    spec: TelemetrySpec
    event: Event
    body: bytes
    row: Row | None
    """Where it is stored; None for a sample."""
    to: DestinationConfig | None
    """The destination it is for; None for all that it is shared with, or the history."""
    private: bool


def lay_out(machine: Machine, shown: Shown, about: str) -> None:
    """Everything about one body."""
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    screen = Screen()
    screen.line((shown.event.name, "bold"), f"  {about}")
    screen.line()
    text = Text(json.dumps(json.loads(shown.body), indent=2, ensure_ascii=False))
    JSONHighlighter().highlight(text)
    screen.show(text)
    screen.line()
    there, withheld = explain(machine, shown)
    screen.table(("Field", "Level", "What it is"), there)
    if withheld:
        screen.line()
        screen.table(("Withheld", "By", "Why"), withheld)
    screen.line()
    screen.line((f"sha256 {hashlib.sha256(shown.body).hexdigest()}; the exact bytes come out of a pipe", "dim"))


Line = tuple[str, str, str]


def explain(machine: Machine, shown: Shown) -> tuple[list[Line], list[Line]]:
    """The fields of a body with their level and description, and those withheld, by whom, and why."""
    body: dict[str, Any] = json.loads(shown.body)
    renamed = shown.to.rename if shown.to is not None else {}
    properties = {**BASE, **shown.event.properties}
    there: list[Line] = [
        (renamed.get(name, name), "private" if prop.audience == "private" else prop.level, prop.description)
        for name, prop in properties.items() if renamed.get(name, name) in body
    ]  # fmt: skip
    if shown.private:
        return there, []
    captured: Mapping[str, Any] | None = None if shown.row is None else json.loads(shown.row.private)
    waiting = waiting_fields(shown.spec, machine.pipeline.grant)
    level: Level = body.get(renamed.get("level", "level"), LEVELS[0])
    withheld = []
    for name, prop in properties.items():
        asked = f"{'*' if name in BASE else shown.event.name}/{name}" not in waiting
        had = None if captured is None else captured.get(name)
        value = body.get(renamed.get(name, name))
        if reason := _reason(prop, level, value, had, asked=asked, sample=captured is None):
            withheld.append((name, *reason))
    return there, withheld


def _reason(
    prop: Property, level: Level, value: Any, had: Any, *, asked: bool, sample: bool
) -> tuple[str, str] | None:  # fmt: skip
    """Who withheld a field, and why; None where nobody did."""
    if value is not None:
        return ("anonymizer", "replaced by another value") if had not in (None, value) else None
    if prop.audience == "private":
        return ("audience", "private: only for you and what is yours") if sample or had is not None else None
    if prop.pii or prop.redact:
        return "spec", "marked as personal"
    if LEVELS.index(prop.level) > LEVELS.index(level):
        return "level", f"shared at level {prop.level}"
    if not asked:
        return "consent", "not shown to you yet"
    return ("anonymizer", "removed") if had is not None else None
