"""What all lints are made of: a row of the table, and the ways through a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Literal, NamedTuple

from ..model import Event, TelemetrySpec
from ..outcomes import Operation, Outcome, Workflow
from ..property import Property

Severity = Literal["contradiction", "error", "warning"]
"""A contradiction cannot be waived; errors and contradictions fail a check."""
Found = Iterator[tuple[str, str]]
"""(path, what is wrong there and what would be right)."""
Check = Callable[[TelemetrySpec, date], Found]


class Lint(NamedTuple):
    """One row of the table."""

    check: Check
    severity: Severity
    about: str
    """What it looks for, in one sentence."""


def properties(spec: TelemetrySpec) -> Iterator[tuple[str, Event, str, Property]]:
    """Every property of every event: path, event, name, property."""
    for event in spec.events:
        for name, prop in event.properties.items():
            yield f"events.{event.name}.properties.{name}", event, name, prop


def outcomes(spec: TelemetrySpec) -> Iterator[tuple[str, Operation | Workflow, str, Outcome, Event]]:
    """What operations and workflows emit: path, operation or workflow, which outcome, the outcome, its event."""
    owners: tuple[Operation | Workflow, ...] = (*spec.operations, *spec.workflows)
    for owner in owners:
        for which, outcome in owner.outcomes():
            event = spec.event(outcome.event, outcome.version)
            assert event is not None  # the model refuses others
            yield f"{type(owner).__name__.lower()}s.{owner.name}.{which}", owner, which, outcome, event
