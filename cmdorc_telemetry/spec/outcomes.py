"""What emits events of a spec by declaration: operations, and workflows of cmdorc's triggers and runs."""

# Annotations are evaluated here: msgspec would have to evaluate them one by one each time a spec is loaded.

from collections.abc import Iterator

from msgspec import field

from .property import Part
from .sources import matches
from .versions import Version


class Outcome(Part, frozen=True, kw_only=True):
    """The event that one outcome emits, and where its properties come from."""

    event: str
    version: Version | None = None
    """The latest where None."""
    properties: dict[str, str] = field(default_factory=dict)
    """Property ← path such as ``input.plan``, ``output.id``, ``error.class``, ``duration_ms``: see ``sources.py``."""


class Operation(Part, frozen=True, kw_only=True):
    """An operation that emits an event when it succeeds or fails."""

    name: str
    success: Outcome | None = None
    failure: Outcome | None = None
    commands: tuple[str, ...] = ()
    """For cmdorc: the commands, ``*`` allowed, whose runs are this operation."""

    def outcomes(self) -> Iterator[tuple[str, Outcome]]:
        """Those it has, by name."""
        return _named(success=self.success, failure=self.failure)

    def covers(self, command: str) -> bool:
        """Whether a run of ``command`` is this operation."""
        return any(matches(pattern, command) for pattern in self.commands)


class Workflow(Part, frozen=True, kw_only=True):
    """A chain of triggers and the runs that it starts, told by events of one's own."""

    name: str
    triggers: tuple[str, ...]
    """The events, ``*`` allowed, that begin such a chain."""
    started: Outcome | None = None
    step: Outcome | None = None
    completed: Outcome | None = None

    def outcomes(self) -> Iterator[tuple[str, Outcome]]:
        """Those it has, by name."""
        return _named(started=self.started, step=self.step, completed=self.completed)

    def begins(self, trigger: str) -> bool:
        """Whether ``trigger`` begins such a chain."""
        return any(matches(pattern, trigger) for pattern in self.triggers)


def _named(**outcomes: Outcome | None) -> Iterator[tuple[str, Outcome]]:
    return ((name, outcome) for name, outcome in outcomes.items() if outcome is not None)
