"""``show-payload`` on a terminal: the body laid out, why each field is in it, and what was withheld, by whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import DestinationConfig
from ..spec import BASE, Event, TelemetrySpec
from ..types import Row
from .machine import Machine
from .screen import Screen
from .withheld import Line, fields_withheld


@dataclass(frozen=True)
class Shown:
    """A body, and what is known of it."""

    spec: TelemetrySpec
    event: Event
    body: bytes
    row: Row | None
    """Where it is stored; None for a sample, and for one that the history has."""
    to: DestinationConfig | None
    """The destination it is for; None for all that it is shared with, or the history."""
    private: bool
    wire: bytes
    """What the destination's reporter makes of the body, and sends where the event is alone; else the body itself."""
    kept: str = ""
    """Of what moment it is, where the history has it, and the spool no more."""
    taken: Mapping[str, str] = field(default_factory=dict)
    """Of a sample: the fields that an anonymizer takes out, with its name."""


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
    screen.table(("Field", "Level", "What it is"), _there(shown))
    if withheld := fields_withheld(machine, shown):
        screen.line()
        screen.table(("Withheld", "By", "Why"), withheld)
    screen.line()
    screen.line((f"sha256 {hashlib.sha256(shown.wire).hexdigest()}", "dim"))
    screen.line(("The exact bytes come out of a pipe.", "dim"))


def _there(shown: Shown) -> list[Line]:
    """The fields of a body with their level and description."""
    body: dict[str, Any] = json.loads(shown.body)
    renamed = shown.to.rename if shown.to is not None else {}
    return [
        (renamed.get(name, name), "private" if prop.audience == "private" else prop.level, prop.description)
        for name, prop in {**BASE, **shown.event.properties}.items() if renamed.get(name, name) in body
    ]  # fmt: skip
