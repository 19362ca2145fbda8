"""What a person is shown before they say yes: destinations, events, fields. Shows and asks; decides nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from ..policy import in_ci
from .machine import Machine, target
from .wording import command_line, place

if TYPE_CHECKING:
    from ..config import TelemetryLevel
    from ..spec import Property, TelemetrySpec
    from .screen import Screen

DEBUG_QUESTION = "This sends hashed command info — confirm? (expires in 30 days)"


def can_ask() -> bool:
    """Whether there is somebody to ask."""
    streams = (sys.stdin, sys.stderr)  # None where the descriptor is closed
    return all(getattr(stream, "isatty", bool)() for stream in streams) and not in_ci(os.environ)


def ask(question: str) -> bool:
    """Ask on standard error; anything but a clear yes is a no."""
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        click.echo(err=True)
    return answer.strip().lower() in ("y", "yes")


def show_destinations(screen: Screen, machine: Machine, *, local: bool) -> None:
    """Who gets something. ``local``: only what is the user's own."""
    shown = [to for to in machine.pipeline.configured if to.audience == "private" or not local]
    for to in shown:
        whose = "yours, gets everything" if to.audience == "private" else "shared"
        lack = f" · {machine.missing[to.name][0]}" if to.name in machine.missing else ""
        screen.line("  ", (to.name, "bold"), f"  {place(target(to)) or to.plugin}  ({whose}){lack}")
    if not shown and not local:
        screen.line("  nobody yet: no destination is configured, everything stays here")


def show_fields(screen: Screen, spec: TelemetrySpec, level: TelemetryLevel) -> None:
    """Every event and field that ``level`` shares, with what it is, and what never leaves."""
    from ..spec import BASE, LEVELS

    name = LEVELS[level.rank - 1]
    _event(screen, "Every event", "", BASE)
    for event in spec.events:
        shared = {key: prop for key, prop in event.properties.items() if prop.shared_at(name)}
        if shared:
            about = f"{event.semantics.what}. {event.semantics.why}. Kept at most {spec.retention_days(event)} days."
            _event(screen, event.name, about, shared)
    private = {key for event in spec.events for key, prop in event.properties.items() if prop.audience == "private"}
    screen.line("Never shared: ", ", ".join(sorted(private)), ".")
    screen.line()


def _event(screen: Screen, name: str, about: str, properties: dict[str, Property]) -> None:
    screen.line((name, "bold"), f"  {about}" if about else "")
    screen.labelled([(f"  {key}", f"{prop.description} ({kind(prop)})") for key, prop in properties.items()])
    screen.line()


def show_exact(screen: Screen) -> None:
    """Where the bytes can be seen."""
    screen.line("The exact bytes: ", command_line("show-payload"))


def kind(prop: Property) -> str:
    """Which values a property may have."""
    from ..spec import bucket_labels

    text = {
        "bool": "yes or no",
        "bucket": ", ".join(bucket_labels(prop.edges)) if prop.edges else "",
        "duration_ms": "milliseconds",
        "enum": ", ".join((*prop.members, "other")),
        "hash": "12 hex digits",
        "number": f"{prop.min or 0:g} to {prop.max or 0:g}",
        "string": f"text, at most {prop.max_length} characters",
    }.get(prop.type, prop.type)
    return text if prop.max_items is None else f"up to {prop.max_items} of: {text}"
