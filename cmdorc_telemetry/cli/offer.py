"""What a person is shown before they say yes: destinations, events, fields, each as it is here. Decides nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from ..config import TelemetryLevel
from ..decision import level_name
from ..declarations import declares_shared
from ..policy import in_ci
from ..spec import BASE, Event, Property, TelemetrySpec
from ..spec.outputs import recorded, sampled, values
from .machine import Machine
from .wording import application, command_line, place, plural

if TYPE_CHECKING:
    from ..config import DestinationConfig
    from .examples import Examples
    from .screen import Screen


def debug_question(until: str = "in 30 days") -> str:
    """What DEBUG is asked for with, beside all the rest."""
    what = "hashed command info" if application().is_cmdorc else "what is declared for level debug"
    return f"This sends {what} — confirm? (expires {until})"


def can_ask() -> bool:
    """Whether there is somebody to ask."""
    streams = (sys.stdin, sys.stderr)  # None where the descriptor is closed
    return all(getattr(stream, "isatty", bool)() for stream in streams) and not in_ci(os.environ)


def ask(question: str) -> bool:
    """Ask on standard error; anything but a clear yes is a no. Raises Abort where the line is not ended: no answer."""
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        raise click.Abort
    return answer.strip().lower() in ("y", "yes")


# -- destinations -----------------------------------------------------------------------------------------------------


def show_destinations(screen: Screen, machine: Machine, *, local: bool) -> None:
    """Who gets something. ``local``: only what is the user's own."""
    shown = [to for to in machine.pipeline.configured if to.audience == "private" or not local]
    for to in shown:
        screen.below(2, (to.name, "bold"), "  ", destination_words(machine, to))
    for text in machine.unplaced.values():
        screen.below(2, f"{text}.", label="  ")
    if not shown and not local:
        screen.line("  nobody yet: no destination is configured, everything stays here")


def destination_words(machine: Machine, to: DestinationConfig) -> str:
    """Where a destination is, whose, and what it leaves out by its own settings."""
    whose = "yours, gets everything, names too" if to.audience == "private" else "shared"
    limits = [] if to.events is None else [f"only {', '.join(to.events) or 'no event'}"]
    if to.level is not None and to.audience == "shared":
        limits.append(f"at most level {to.level.value}")
    lack = [machine.missing[to.name][0]] if to.name in machine.missing else []
    return f"{place(machine.target(to)) or to.plugin}  ({' · '.join((whose, *limits, *lack))})"


def _recipients(machine: Machine, event: Event, level: TelemetryLevel) -> str:
    """Which shared destinations get an event at ``level``, and what of it they do not."""
    gets, not_to = [], []
    for to in machine.pipeline.configured:
        least = min(level, to.level or level)
        if to.audience == "private":
            continue
        if (to.events is not None and event.name not in to.events) or not event.shared_at(level_name(least)):
            not_to.append(to.name)
            continue
        without = [name for name, prop in event.properties.items()
                   if prop.shared_at(level_name(level)) and not prop.shared_at(level_name(least))]  # fmt: skip
        gets.append(f"{to.name} (without {', '.join(without)})" if without else to.name)
    return (", ".join(gets) or "nobody yet") + (f"; not to {', '.join(not_to)}" if not_to else "")


def _own(machine: Machine, event: Event) -> str:
    """Which destinations of the user's own get an event, all of it."""
    gets = [to.name for to in machine.pipeline.configured
            if to.audience == "private" and (to.events is None or event.name in to.events)]  # fmt: skip
    return f"{', '.join(gets)} (yours)" if gets else "nobody: it stays on this machine"


# -- events and fields ------------------------------------------------------------------------------------------------


def show_specs(
    screen: Screen, machine: Machine, shown: Examples, specs: Collection[TelemetrySpec], level: TelemetryLevel
) -> None:
    """Every event and field that ``level`` shares, as it is here, and what never leaves."""
    screen.line(("Every event", "bold"), "  has these fields")
    foreign = machine.application.foreign_fields
    base = {name: (prop, values(prop)) for name, prop in BASE.items() if name not in foreign}
    _fields(screen, base, shown.base())
    for spec in specs:
        show_spec(screen, machine, shown, spec, level)


def show_spec(
    screen: Screen, machine: Machine, shown: Examples, spec: TelemetrySpec, level: TelemetryLevel
) -> None:  # fmt: skip
    """The events of one spec, and whose it is. One that shares nothing is shown as what it records for the user."""
    owners = f", of {', '.join(spec.meta.owners)}" if spec.meta.owners else ""
    screen.below(0, (spec.meta.title or spec.meta.name, "bold"), f"  {spec.meta.name}{owners}")
    screen.line()
    private: set[str] = set()
    for event in spec.events:
        private |= {name for name, prop in event.properties.items() if prop.audience == "private"}
        shared = {name: prop for name, prop in event.properties.items() if prop.shared_at(level_name(level))}
        if shared:
            example = shown.of(spec, event)
            screen.below(0, (spec.label(event), "bold"), f"  {event.semantics.what}")
            _labelled(screen, about(spec, event))
            to = f"nobody: {example.trouble}" if example.trouble else _recipients(machine, event, level)
            _labelled(screen, [("To", to), ("Here", "the newest" if example.own else "none yet, a sample")])
            _fields(screen, {name: (prop, recorded(event, name)) for name, prop in shared.items()}, example.values)
        elif event.properties and not declares_shared(spec):
            screen.below(0, (spec.label(event), "bold"), f"  {event.semantics.what}")
            _labelled(screen, (*about(spec, event), ("To", _own(machine, event))))
            own = {name: (prop, recorded(event, name)) for name, prop in event.properties.items()}
            _fields(screen, own, dict.fromkeys(own, ""))
    if declares_shared(spec) and not any(event.shared_at(level_name(level)) for event in spec.events):
        screen.line(f"  Level {level.value} shares nothing of it.")
        screen.line()
    if private:
        screen.below(0, "Never shared: ", ", ".join(sorted(private)), ".")
        screen.line()


def about(spec: TelemetrySpec, event: Event) -> Iterator[tuple[str, str]]:
    """Why an event is collected, and how long it is kept."""
    if event.semantics.why:
        yield "Why", event.semantics.why
    yield "Kept", f"at most {plural(spec.retention_days(event), 'day')}"
    if some := sampled(spec, event):
        yield "Sampled", some


def _labelled(screen: Screen, rows: Iterator[tuple[str, str]] | Collection[tuple[str, str]]) -> None:
    for label, text in rows:
        screen.below(11, text, label=f"  {label}")


def _fields(screen: Screen, properties: Mapping[str, tuple[Property, str]], examples: Mapping[str, str]) -> None:
    screen.line()
    width = 0 if screen.narrow else max(map(len, properties))
    for name, (prop, kind) in properties.items():
        show_field(screen, name.ljust(width), prop, kind, examples[name])
    screen.line()


def show_field(screen: Screen, name: str, prop: Property, kind: str, example: str) -> None:
    """One field: its value here, what it is, what it may be."""
    screen.below(2, name, "  ", (example, "cyan"))
    screen.below(6, f"{prop.description} ({kind})" if prop.description else kind)


def show_exact(screen: Screen) -> None:
    """Where the bytes can be seen."""
    screen.line("The exact bytes: ", command_line("show-payload"))
