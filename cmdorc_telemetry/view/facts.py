"""What the page is made of. Whoever makes these asks and decides; the page only shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from ..types import Ledger

if TYPE_CHECKING:
    from ..insights import Days, EventCounts

Section = Literal["places", "collected", "queues", "sent", "withheld", "past"]
FieldState = Literal["shared", "allowed", "waits", "level", "private", "personal", "local"]
"""``shared`` goes to somebody else; what is ``allowed`` may, but nobody else gets it."""
Whose = Literal["here", "yours", "shared", "gone"]


class Note(Struct, frozen=True):
    """Something that waits for the user, or is wrong, and lines that help, to be copied."""

    text: str
    lines: tuple[str, ...] = ()


class PlaceFacts(Struct, frozen=True, kw_only=True):
    """One destination, and the ledger of its events."""

    name: str
    whose: Whose
    where: str = ""
    state: str = ""
    """In a word or two."""
    note: str = ""
    """What else there is to say of that."""
    well: bool = True
    ledger: Ledger


class FieldFacts(Struct, frozen=True, kw_only=True):
    """One field: what it is, what it holds here, who gets it."""

    name: str
    about: str
    kind: str
    """Which values it may have."""
    value: str | None = None
    """As this machine recorded it last."""
    level: str
    """The least at which it may be shared."""
    state: FieldState
    goes: tuple[str, ...] = ()
    """The destinations that get it, the history not among them."""


class EventFacts(Struct, frozen=True, kw_only=True):
    """One event that the spec declares; without a name, what all of them have."""

    name: str = ""
    what: str = ""
    why: str = ""
    days: int = 0
    """How long a server may keep it; 0 where that is said elsewhere."""
    sampled: str = ""
    """Which of such events are shared, in words; empty where all are."""
    fields: tuple[FieldFacts, ...]


class Body(Struct, frozen=True):
    """One event that waits, as it would be sent."""

    event: str
    at: float
    body: bytes


class Queue(Struct, frozen=True, kw_only=True):
    """What waits for one destination."""

    name: str
    waiting: int
    """Those set aside not included."""
    next_try: float = 0.0
    bodies: tuple[Body, ...] = ()
    """The first of them."""


class Batch(Struct, frozen=True, kw_only=True):
    """One batch that left."""

    at: float
    events: Mapping[str, int]
    fields: tuple[str, ...]
    """The names of all fields in it."""
    size: int
    digest: str
    answer: str


class Sent(Struct, frozen=True, kw_only=True):
    """What left for one destination, as the audit has it."""

    name: str
    whose: Whose
    batches: int
    events: int
    size: int
    latest: tuple[Batch, ...]
    """The newest first."""


class Withheld(Struct, frozen=True, kw_only=True):
    """Something that was not shared."""

    what: Mapping[str, tuple[str, ...]] = {}
    """Event → fields (the empty name: of all events); nothing for whole events, or for what ``why`` says."""
    by: str
    why: str
    times: int | None = None
    """How many events that befell; None where nobody counts."""


class Comparison(Struct, frozen=True):
    """What a server said of this install among all."""

    place: str
    rank: float
    """The share of installs, in per cent, whose median run is faster."""
    at: float


class Facts(Struct, frozen=True, kw_only=True):
    """Everything."""

    now: float
    version: str
    command: str
    """How the commands of the group begin, as they are typed."""
    recording: bool
    """Here: with what the project's file lowers."""
    recording_elsewhere: bool
    level: str
    decided: tuple[tuple[str, str], ...] = ()
    """Who decided, when, where; what limits it; what was ignored: label and text."""
    alarms: tuple[str, ...] = ()
    """Where the audit and the ledger do not agree."""
    notes: tuple[Note, ...] = ()
    places: tuple[PlaceFacts, ...] = ()
    unread: tuple[str, ...] = ()
    """What is not in any ledger yet, in words."""
    events: tuple[EventFacts, ...] = ()
    queues: tuple[Queue, ...] = ()
    sent: tuple[Sent, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    past: Days | None = None
    """The runs of commands; None for another application than cmdorc."""
    counted: tuple[EventCounts, ...] = ()
    """The events of another application, for each of some days, the oldest first."""
    compared: tuple[Comparison, ...] = ()
    failed: Mapping[Section, str] = field(default_factory=dict)
    """What could not be found out, and why: a sentence for its section."""
