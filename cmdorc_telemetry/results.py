"""What became of an event that was tracked, and what was wrong with it. Never holds a value that was passed."""

# Annotations are evaluated here: as strings they would make a NamedTuple ten times as dear to import.
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from .spec import Event

Reason = Literal["unknown", "undeclared", "invalid", "missing"]


class Result(Enum):
    """What became of an event. True only if it was captured."""

    CAPTURED = "captured"
    """It is recorded, as far as its spec allows."""
    WITHHELD = "withheld"
    """It is not: telemetry is off, nobody agreed to its spec, it has expired, or it lacks what it requires."""
    UNKNOWN = "unknown"
    """No spec declares such an event."""

    def __bool__(self) -> bool:
        return self is Result.CAPTURED


class Violation(NamedTuple):
    """One thing that is wrong with an event."""

    event: str
    property: str
    """Empty where it is the event itself."""
    reason: Reason
    path: str
    """Where it is in what was passed, such as ``tags[3]`` or ``context.user_id``."""
    found: str
    """The type of what was found, and never what it is; empty for nothing."""
    expected: str

    def __str__(self) -> str:
        where = f"{self.event}: {self.path}" if self.path else self.event
        return f"{where}: found {self.found or 'nothing'}; expected {self.expected}"


class Witness(Protocol):
    """Who is told about an event that is tracked, on the caller's thread and before it is recorded."""

    def violated(self, violations: "tuple[Violation, ...]") -> None:
        """These are wrong with it. What it raises keeps the event from being recorded."""

    def accepted(self, event: "Event", own: bytes) -> None:
        """This is left of it: a JSON object of its own fields."""
