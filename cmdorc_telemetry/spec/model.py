"""The spec as data: what may be collected, of which type, at which level, for whom, for how long, and why.

A :class:`TelemetrySpec` says nothing about how it is used: shapes (checks and masks) are in ``shapes.py``.
"""

# Annotations are evaluated here: msgspec would have to evaluate them one by one each time a spec is loaded.

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Literal

import msgspec
from msgspec import field
from msgspec.structs import force_setattr, replace

from .outcomes import Operation, Outcome, Workflow
from .property import BASE, NAME, WORD, Level, Part, Property
from .versions import Version, check, major, order, same


class Semantics(Part, frozen=True, kw_only=True):
    """What an event means."""

    what: str
    who: str = ""
    why: str = ""


class Retention(Part, frozen=True, kw_only=True):
    """How long a server may keep an event."""

    days: int
    policy: Literal["archive", "delete"] = "delete"

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ValueError(f"found {self.days} days; expected 1 or more")


class Sampling(Part, frozen=True, kw_only=True):
    """Which of the events are shared: of those that meet every condition the share ``rate``; of the others none."""

    rate: float
    conditions: tuple[str, ...] = ()
    """As ``conditions.py`` reads them."""
    always: tuple[str, ...] = ()
    """An event that meets one of these is shared whatever the rate and the conditions: failures, for example."""
    by: str = ""
    """The property, or ``context.…``, whose events are shared all or none of them; each event by itself where empty."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"found a sampling rate of {self.rate:g}; expected 0 to 1")
        for text in (*self.conditions, *self.always):
            from .conditions import parse  # few specs have any

            parse(text)


class Threshold(Part, frozen=True, kw_only=True):
    """The range that a metric should stay in."""

    metric: str
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError(f"threshold of {self.metric!r} needs 'min', 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")


class AnomalyDetection(Part, frozen=True, kw_only=True):
    """When an event's statistics are unusual, and what to do then."""

    enabled: bool = True
    minimum_sample: int = 10
    thresholds: tuple[Threshold, ...] = ()
    actions: tuple[Literal["alert", "log", "trigger_regen"], ...] = ("log",)

    def __post_init__(self) -> None:
        if self.minimum_sample < 1:
            raise ValueError(f"found minimum_sample {self.minimum_sample}; expected 1 or more")


class Event(Part, frozen=True, kw_only=True):
    """One kind of event."""

    name: str
    version: Version = 1
    semantics: Semantics
    privacy: Literal["public", "internal", "pii", "sensitive"] = "internal"
    properties: dict[str, Property]
    """In a spec that was loaded, those of its groups are among them."""
    groups: tuple[str, ...] = ()
    """Groups of properties that it has beside its own."""
    retention: Retention | None = None
    sampling: Sampling | None = None
    anomaly_detection: AnomalyDetection | None = None
    rank: int = 0
    """What it is worth where there is no room for all, 0 to 9: the lowest go first. One that adds up others is worth
    more than each of them."""
    tags: tuple[str, ...] = ()
    expires: date | None = None
    """The first day on which it is no longer recorded."""
    deprecated: str = ""
    """Why it should no longer be used; empty where it should."""
    replaced_by: str = ""
    """The event to use instead."""

    def __post_init__(self) -> None:
        check(self.version)
        if not 0 <= self.rank <= 9:
            raise ValueError(f"found rank {self.rank}; expected 0 to 9")
        if self.replaced_by and not (self.deprecated or self.expires):
            raise ValueError(f"found 'replaced_by' {self.replaced_by!r}; expected 'deprecated' or 'expires' beside it")
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name; expected letters, digits and $ _ . - only")
        _check_names(self.properties)

    @property
    def major(self) -> int:
        """The version as frames and rows carry it."""
        return major(self.version)

    def masks(self, name: str) -> bool:
        """Whether only that there was a value of a property is recorded, and never the value."""
        prop = self.properties[name]
        return prop.masked or (self.privacy == "sensitive" and prop.audience == "shared")

    def shared_at(self, level: Level | None) -> bool:
        """Whether the event has any field of its own to share at ``level``."""
        return any(prop.shared_at(level) for prop in self.properties.values())


def _check_names(properties: Mapping[str, Property]) -> None:
    for name in properties:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name; expected letters, digits and $ _ . - only")
        if name in BASE:
            raise ValueError(f"property {name!r} is a base field that every event has")


class Meta(Part, frozen=True, kw_only=True):
    """Who owns a spec, and its identity: ``name`` and ``version``."""

    name: str
    version: Version = 1
    title: str = ""
    description: str = ""
    domain: str = ""
    owners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    stability: Literal["idea", "in_creation", "experimental", "beta", "stable", "deprecated"] = "experimental"

    def __post_init__(self) -> None:
        if len(self.name) > 100 or not re.fullmatch(WORD, self.name):
            raise ValueError(f"{self.name!r} is no name; expected at most 100 letters, digits and . _ + -")
        check(self.version)


class Provider(Part, frozen=True, kw_only=True):
    """Where the spec's authors send its events: documentation and defaults; a spec never redirects anything."""

    type: Literal["posthog", "segment", "opentelemetry", "internal"]
    config: dict[str, Any] = field(default_factory=dict)


class Config(Part, frozen=True, kw_only=True):
    """Defaults for the events of a spec."""

    default_retention_days: int = 90
    default_sampling_rate: float = 1.0
    providers: tuple[Provider, ...] = ()
    anomaly_detection: bool = True
    check_interval_ms: int = 60_000
    """How often a detector should look at the statistics."""

    def __post_init__(self) -> None:
        if not 0 <= self.default_sampling_rate <= 1:
            raise ValueError(f"found a sampling rate of {self.default_sampling_rate:g}; expected 0 to 1")
        if self.default_retention_days < 1:
            raise ValueError(f"found {self.default_retention_days} days; expected 1 or more")
        if self.check_interval_ms < 1:
            raise ValueError(f"found check_interval_ms {self.check_interval_ms}; expected 1 or more")


class Waiver(Part, frozen=True, kw_only=True):
    """One finding of the lint that is as it should be."""

    lint: str
    at: str
    """The path that the finding names, such as ``events.paid.properties.amount``."""
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError(
                f"the waiver of {self.lint!r} has no 'reason'; expected why the finding is as it should be"
            )


class TelemetrySpec(Part, frozen=True, kw_only=True):
    """One spec. ``ref`` is what frames, bodies and servers call it."""

    meta: Meta
    groups: dict[str, dict[str, Property]] = field(default_factory=dict)
    """Properties that several events have: name → property."""
    context: dict[str, Property] = field(default_factory=dict)
    """What may be recorded of the context that an event was tracked in: ``context.NAME`` of every event."""
    events: tuple[Event, ...] = ()
    operations: tuple[Operation, ...] = ()
    workflows: tuple[Workflow, ...] = ()
    config: Config = field(default_factory=Config)
    waivers: tuple[Waiver, ...] = ()
    origin: dict[str, Any] | None = None
    """The ContractSpec document that it was read from, so that writing it loses nothing; None for any other."""

    def __post_init__(self) -> None:
        for properties in (self.context, *self.groups.values()):
            _check_names(properties)
        seen: set[tuple[str, int]] = set()
        for event in self.events:
            if (event.name, event.major) in seen:
                raise ValueError(f"event {event.name!r} version {event.version} is declared twice")
            seen.add((event.name, event.major))
        owners: tuple[Operation | Workflow, ...] = (*self.operations, *self.workflows)
        for owner in owners:
            kind = type(owner).__name__.lower()
            for _, outcome in owner.outcomes():
                if self.event(outcome.event, outcome.version) is None:
                    raise ValueError(f"{kind} {owner.name!r} emits {outcome.event!r}, which is not declared")
        force_setattr(self, "events", tuple(self._whole(event) for event in self.events))

    def _whole(self, event: Event) -> Event:
        """``event`` with the properties of its groups and of the context."""
        added = {f"context.{name}": prop for name, prop in self.context.items()}
        for group in event.groups:
            if group not in self.groups:
                known = ", ".join(self.groups) or "none is declared"
                raise ValueError(f"event {event.name!r} has the group {group!r}; expected one of: {known}")
            added.update(self.groups[group])
        for name, prop in event.properties.items():
            if added.pop(name, prop) != prop:
                raise ValueError(f"event {event.name!r} declares {name!r} otherwise than its group or the context does")
        return replace(event, properties={**event.properties, **added}) if added else event

    def own_properties(self, event: Event) -> dict[str, Property]:
        """The properties of ``event`` that neither a group nor the context gives it."""
        given = {f"context.{name}" for name in self.context}.union(*(self.groups[group] for group in event.groups))
        return {name: prop for name, prop in event.properties.items() if name not in given}

    @property
    def ref(self) -> str:
        """Name and major version, such as ``cmdorc.core@1``."""
        return f"{self.meta.name}@{major(self.meta.version)}"

    def event(self, name: str, version: Version | None = None) -> Event | None:
        """The event of that name; the latest version where none is given."""
        found = [event for event in self.events
                 if event.name == name and (version is None or same(version, event.version))]  # fmt: skip
        return max(found, key=lambda event: order(event.version), default=None)

    def asked_for(self, label: str) -> Event | None:
        """The event that decisions call so: by its name, and with ``@2`` an earlier version than the latest."""
        name, _, version = label.partition("@")
        return next((event for event in self.events if event.name == name and str(event.major) == version),
                    self.event(name))  # fmt: skip

    def label(self, event: Event) -> str:
        """What decisions call one of its events: see ``asked_for``."""
        return event.name if event is self.event(event.name) else f"{event.name}@{event.major}"

    def sampling_rate(self, event: Event) -> float:
        """The share of ``event`` that is shared, 0 to 1."""
        return event.sampling.rate if event.sampling else self.config.default_sampling_rate

    def retention_days(self, event: Event) -> int:
        """For how many days a server may keep ``event``."""
        return event.retention.days if event.retention else self.config.default_retention_days

    def in_force(self, today: date) -> "TelemetrySpec":
        """The spec without what has expired by ``today``, and without what would emit it."""
        parts: list[Event | Property] = [*self.events, *self.context.values()]
        for properties in (*self.groups.values(), *(event.properties for event in self.events)):
            parts += properties.values()
        if not any(part.expires is not None and part.expires <= today for part in parts):
            return self

        def kept(properties: Mapping[str, Property]) -> dict[str, Property]:
            return {name: prop for name, prop in properties.items() if prop.expires is None or today < prop.expires}

        events = [replace(event, properties=kept(event.properties)) for event in self.events
                  if event.expires is None or today < event.expires]  # fmt: skip

        def told(outcome: Outcome | None) -> Outcome | None:
            left = outcome is not None and any(
                event.name == outcome.event and (outcome.version is None or same(outcome.version, event.version))
                for event in events
            )
            return outcome if left else None

        return replace(
            self, events=tuple(events), context=kept(self.context),
            groups={name: kept(group) for name, group in self.groups.items()},
            operations=tuple(replace(each, success=told(each.success), failure=told(each.failure))
                             for each in self.operations),
            workflows=tuple(replace(each, started=told(each.started), step=told(each.step),
                                    completed=told(each.completed)) for each in self.workflows),
        )  # fmt: skip

    def declaration(self, event: Event, name: str) -> str:
        """All that a person agrees to when they agree to a field: equal texts need no new consent."""
        base = name in BASE
        prop = BASE[name] if base else event.properties[name]
        told = ("description", "expires", "deprecated", "replaced_by")
        bounds = {key: value for key, value in msgspec.to_builtins(prop).items() if key not in told}
        why: dict[str, Any] = {} if base else {"why": event.semantics.why, "retention_days": self.retention_days(event)}
        if not base and event.masks(name) and not prop.masked:
            why["redact"] = True  # as all of a sensitive event is; no longer to be one is more
        return msgspec.json.encode({**bounds, **why}, order="sorted").decode()

    def declared(self, seen: Callable[[Property], bool]) -> dict[str, str]:
        """The declarations of the fields that are ``seen``: ``event/name``, names may hold dots, and no slash.

        What an earlier version of an event declares otherwise than the latest is ``event@2/name``.
        """
        found: dict[str, str] = {}
        for event in sorted(self.events, key=lambda event: event.major, reverse=True):
            latest = self.event(event.name)
            for name in (name for name, prop in event.properties.items() if seen(prop)):
                text = self.declaration(event, name)
                if event is latest:
                    found[f"{event.name}/{name}"] = text
                elif found.get(f"{event.name}/{name}") != text:
                    found[f"{event.name}@{event.major}/{name}"] = text
        return found


# Two threads that are the first to use a type at the same time crash msgspec (0.22): it is complete from here on.
msgspec.json.Decoder(TelemetrySpec)
