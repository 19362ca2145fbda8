"""The records that pass between the stages, and between them and the plugins.

All are frozen: what a plugin is given cannot be changed by another plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from msgspec import Struct, field

if TYPE_CHECKING:
    from pathlib import Path

    from .spec import TelemetrySpec

T = TypeVar("T")

EventStatus = Literal["accepted", "duplicate", "rejected", "retry"]
Audience = Literal["shared", "private"]
DropReason = Literal[
    "journal-full", "storage-failed", "corrupt", "expired", "spool-full", "over-size", "rejected-by-server",
    "withdrawn-consent", "before-your-yes", "destination-removed", "destination-changed", "reporter-gone", "discarded",
    "unwanted",
]  # fmt: skip
DROP_REASONS: Mapping[DropReason, str] = {
    "journal-full": "As many journal segments, or as many bytes, waited to be imported as the bounds allow.",
    "storage-failed": "It could not be written to the journal, mostly because the disk was full.",
    "corrupt": "It was damaged on disk.",
    "expired": "It could not be delivered within `keep_days`.",
    "spool-full": "As many events, or as many bytes, waited as the bounds allow.",
    "over-size": "It is too large for the receiver, also when it is alone.",
    "rejected-by-server": "The receiver will never take it.",
    "withdrawn-consent": "It may no longer be sent.",
    "before-your-yes": "It was recorded before the yes to its destination.",
    "destination-removed": "Its destination was taken out of the configuration.",
    "destination-changed": "Its destination leads elsewhere now, or takes other events.",
    "reporter-gone": "It was for a reporter given by code, which is gone with its process.",
    "discarded": "It was set aside, and a person discarded it.",
    "unwanted": "Its receiver asked for less.",
}
"""Why an event can be lost: all there is, with one sentence each, as ``status``, ledger and docs name them."""


class Captured(Struct, frozen=True, array_like=True):
    """What capture writes into the journal: one checked event, or one trigger that is still to be folded."""

    kind: Literal["event", "trigger"]
    spec: str
    event: str
    version: int
    at: int
    """Seconds since the epoch, UTC."""
    body: msgspec.Raw
    """A JSON object: base fields and every declared field with a valid value, private ones included."""


class Row(Struct, frozen=True, kw_only=True, gc=False):
    """One event behind the gate, as the spool keeps it. There are many at a time: the collector skips them."""

    spec: str
    event: str
    version: int
    at: int
    generation: str
    source: str
    """The journal that it came from; what the spool gives back has one only where a destination asked for it."""
    rank: int = 0
    """What it is worth where there is no room for all: the lowest go first."""
    private: bytes
    """For destinations of the user's own."""
    shared: bytes | None
    """What the widest destination of somebody else's may get; None where nothing may be shared."""
    withheld: Mapping[str, str] = MappingProxyType({})
    """Fields that an anonymizer removed from ``shared``, or gave a value that is not valid → the anonymizer."""


class Gated(Struct, frozen=True, kw_only=True):
    """What the gate made of the records of one segment."""

    rows: tuple[Row, ...] = ()
    withheld: Mapping[str, int] = field(default_factory=dict)
    """Shared bodies held back, by reason: level, consent, sampling, invalid, plugin-not-loaded, anonymizer:NAME."""
    unreadable: int = 0
    """Records that are no events."""


class Leased(Struct, frozen=True):
    """One event that a worker may send now."""

    seq: int
    row: Row
    tries: int = 0


class Lease(Struct, frozen=True):
    """What a worker was given; ``upto`` is where its cursor goes when the batch is settled."""

    destination: str
    items: tuple[Leased, ...]
    upto: int


class DeadLetter(Struct, frozen=True, kw_only=True):
    """One event that was rejected while it was alone, and is kept for somebody to look at."""

    destination: str
    seq: int
    at: int
    """Seconds since the epoch, UTC."""
    spec: str
    event: str
    event_id: str
    tries: int
    reason: str
    """What the receiver, or its reporter, said."""


class View(Struct, frozen=True, kw_only=True):
    """What one destination gets to see of the spool."""

    name: str
    audience: Audience = "shared"
    identity: str = ""
    kinds: frozenset[tuple[str, str]] | None = None
    """The (spec, event) pairs it takes; None for all."""
    source: str | None = None
    """The only journal whose events it takes; None for all."""

    def wants(self, spec: str, event: str, has_shared: bool, source: str) -> bool:
        """Whether there is a body for it."""
        return (
            (self.audience == "private" or has_shared)
            and (self.kinds is None or (spec, event) in self.kinds)
            and (self.source is None or self.source == source)
        )


class Ledger(Struct, frozen=True, kw_only=True):
    """The bookkeeping of one destination: ``recorded == acknowledged + pending + sum(dropped.values())``."""

    name: str
    recorded: int = 0
    acknowledged: int = 0
    pending: int = 0
    """Waiting, those set aside included."""
    set_aside: int = 0
    """Of those: rejected while alone, kept to be looked at."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """By reason: names of ``DROP_REASONS``."""
    failures: int = 0
    """Batches in a row that failed as a whole."""
    next_try: float = 0.0
    """Seconds since the epoch; 0 for at once."""
    last_report: float = 0.0
    last_error: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    removed: bool = False

    def __str__(self) -> str:
        lost = sum(self.dropped.values())
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.dropped.items()) if count)
        return (
            f"recorded {self.recorded} = acknowledged {self.acknowledged} + pending {self.pending} + dropped {lost}"
            + (f" ({reasons})" if reasons else "")
        )


class Setup(Struct, frozen=True, kw_only=True):
    """What a plugin that is no destination has to work with."""

    name: str
    """The plugin's, as it stands in the user's ``plugins``."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """``[telemetry.settings.NAME]``, as written."""
    where: str = ""
    """The file that it stands in, for messages."""
    folder: Path
    """For files of its own; to be made where it is missing. Deleted at opt-out with all that is in it."""
    specs: tuple[TelemetrySpec, ...] = ()
    """Those that are in force."""

    @property
    def key(self) -> str:
        """The path to the settings, for messages."""
        return f"telemetry.settings.{self.name}"

    def read(self, type_: type[T]) -> T:
        """The settings as a Struct of the plugin's. Raises ConfigError."""
        from .decoding import decode

        return decode(dict(self.settings), type_, self.where, key=self.key)


class Event(Struct, frozen=True, kw_only=True):
    """An event as an anonymizer sees it: the fields that would be shared, read-only."""

    spec: str
    """The spec that declares it, and its major version, such as ``cmdorc.core@1``."""
    name: str
    """Its name, such as ``command_completed``."""
    fields: Mapping[str, Any]
    """Those that the user's level shares, base fields such as ``timestamp`` and ``event_id`` among them."""


class BatchEvent(Struct, frozen=True):
    """One event of a batch: its id, its name and the body that the gate let out."""

    event_id: str
    """A UUID: an event that comes again has the same."""
    event: str
    """Its name, such as ``command_completed``."""
    body: bytes
    """A JSON object, UTF-8: what show-payload prints. ``payload`` is it, decoded: a fresh dict at each access."""
    seq: int = 0
    """Its number on this machine, growing; 0 for one that was never stored. No part of what is sent."""

    @property
    def payload(self) -> dict[str, Any]:
        """The body, decoded: a fresh dict at each access."""
        payload: dict[str, Any] = msgspec.json.decode(self.body)
        return payload


class Batch(Struct, frozen=True, kw_only=True):
    """What one delivery hands to a reporter."""

    destination: str
    """The name of the destination, as the user's configuration has it."""
    events: tuple[BatchEvent, ...]
    """In the order in which they were recorded."""
    epoch: str = ""
    """Identifies what the drop counts belong to: another one for each spool, and for each install id."""
    drops: Mapping[str, int] = field(default_factory=dict)
    """Events that this client lost for this destination in the epoch, by reason, cumulative; those that journals lost
    before the destination was there are among them."""


class EventResult(Struct, frozen=True):
    """What became of one event of a batch."""

    event_id: str
    """Which event of the batch."""
    status: EventStatus
    """``duplicate``: it was there before; ``rejected``: never send it again; ``retry``: send it again."""
    reason: str | None = None
    """Why it was rejected, as ``status`` and ``dead-letters`` show it; ``unwanted`` drops the event instead."""


class BatchResult(Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    results: tuple[EventResult, ...] | None = None
    """One an event, in any order; None means that all were accepted. An event not named is retried."""
    answer: Mapping[str, Any] | None = None
    """What the receiver gave back, such as ``{"stats": {"percentile_duration": 87}}``: kept, shown by ``stats``."""


class Anomaly(Struct, frozen=True, kw_only=True):
    """One alert of a detector, after hysteresis."""

    detector: str
    """The detector's name, which is its plugin's unless it has one of its own."""
    event: str
    """The name of the event that was judged."""
    metric: str
    """As a threshold names it: ``duration_ms`` or another property, ``mean(…)`` or ``p95(…)`` of one,
    ``failure_share``, ``count``. What is recorded is ``duration_ms``, one of the last four words, or ``other``."""
    kind: Literal["above", "below", "changed"]
    """In which direction it left what is usual; ``changed`` where there is no direction."""
    value: float
    """What was found. Finite."""
    threshold: float
    """What was expected at most, or at least. Finite; where it is 0, no ratio is recorded."""
    sample_count: int
    """How many events were judged together."""
    group: str | None = None
    """The group that was judged, such as a command name; None for all events together."""
    group_by: str = ""
    """The property that the group is a value of: empty exactly where ``group`` is None. Only the group of a
    ``command_name`` is recorded."""
    message: str = ""
    """It in words, for the person: at most 500 characters are recorded, and none are shared."""
    spec: str = ""
    """The spec that declares the event, and its major version: ``spec`` of the event."""
    actions: tuple[str, ...] = ("alert",)
    """What is to be done beside recording it: ``alert`` calls ``telemetry_anomaly``, ``log`` logs a warning."""
