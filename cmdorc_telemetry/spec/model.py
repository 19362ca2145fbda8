"""The spec as data: what may be collected, of which type, at which level, for whom, for how long, and why.

A :class:`TelemetrySpec` says nothing about how it is used: shapes (checks and masks) are in ``shapes.py``.
"""

# Annotations are evaluated here: msgspec would have to evaluate them one by one each time a spec is loaded.

import re
from itertools import pairwise
from math import isfinite
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

ValueType = Literal[
    "bool", "count", "duration_ms", "number", "enum", "bucket", "hash", "version", "uuid", "timestamp", "string"
]
Level = Literal["minimal", "standard", "debug"]
LEVELS: tuple[Level, ...] = ("minimal", "standard", "debug")

_BOUNDS: dict[str, tuple[str, ...]] = {
    "count": ("min", "max"),
    "duration_ms": ("min", "max"),
    "number": ("min", "max"),
    "enum": ("members",),
    "bucket": ("edges",),
    "string": ("pattern", "max_length"),
}
_NAME = re.compile(r"[A-Za-z$_][A-Za-z0-9$_.\-]{0,99}")
_WORD = r"[A-Za-z0-9][A-Za-z0-9._+\-]*"
_LONGEST = 1 << 20
"""No string or list of an event is longer: msgspec could not check all that TOML can write."""


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all parts of a spec have in common."""


class Property(_Part, frozen=True, kw_only=True):
    """One field of an event. With ``max_items`` it is a list of its type."""

    type: ValueType
    description: str = ""
    required: bool = False
    pii: bool = False
    redact: bool = False
    level: Level = "standard"
    """The least level that may share it."""
    audience: Literal["shared", "private"] = "shared"
    min: float | None = None
    max: float | None = None
    members: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    pattern: str | None = None
    max_length: int | None = None
    max_items: int | None = None

    def __post_init__(self) -> None:
        allowed = _BOUNDS.get(self.type, ())
        for name in ("min", "max", "members", "edges", "pattern", "max_length"):
            if getattr(self, name) not in (None, ()) and name not in allowed:
                raise ValueError(f"type {self.type!r} takes no {name!r}")
        for name in ("max_length", "max_items"):
            if (most := getattr(self, name)) is not None and most < 1:
                raise ValueError(f"found {name} {most}; expected 1 or more")
            if most is not None and most > _LONGEST:
                raise ValueError(f"found {name} {most}; expected {_LONGEST} at most")
        for bound in (self.min, self.max, *self.edges):
            if bound is not None and not isfinite(bound):
                raise ValueError(f"found the bound {bound}; expected a finite number")
        if self.type == "enum" and not self.members:
            raise ValueError("type 'enum' needs 'members'")
        if self.type == "bucket" and (not self.edges or sorted(set(self.edges)) != list(self.edges)):
            raise ValueError(f"found edges {list(self.edges)}; type 'bucket' needs 'edges' that rise")
        if self.type == "number" and (self.min is None or self.max is None):
            raise ValueError("type 'number' needs 'min' and 'max'")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")
        if self.type == "string":
            if self.pattern is None or self.max_length is None:
                raise ValueError("type 'string' needs 'pattern' and 'max_length': free text can hold anything")
            try:
                re.compile(self.pattern)
                re.compile(rf"\A(?:{self.pattern})\Z")
            except re.error as fault:
                raise ValueError(f"pattern {self.pattern!r} is no regular expression: {fault}") from None

    def shared_at(self, level: Level | None) -> bool:
        """Whether a destination of somebody else's may get it at ``level`` (None: nothing may be shared)."""
        return (
            level is not None
            and self.audience == "shared"
            and not (self.pii or self.redact)
            and LEVELS.index(self.level) <= LEVELS.index(level)
        )


class Semantics(_Part, frozen=True, kw_only=True):
    """What an event means."""

    what: str
    who: str = ""
    why: str = ""


class Retention(_Part, frozen=True, kw_only=True):
    """How long a server may keep an event."""

    days: int
    policy: Literal["archive", "delete"] = "delete"

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ValueError(f"found {self.days} days; expected 1 or more")


class Sampling(_Part, frozen=True, kw_only=True):
    """Which share of the events is shared: a function of the event's id."""

    rate: float
    conditions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"found a sampling rate of {self.rate:g}; expected 0 to 1")


class Threshold(_Part, frozen=True, kw_only=True):
    """The range that a metric should stay in."""

    metric: str
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError(f"threshold of {self.metric!r} needs 'min', 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")


class AnomalyDetection(_Part, frozen=True, kw_only=True):
    """When an event's statistics are unusual, and what to do then."""

    enabled: bool = True
    minimum_sample: int = 10
    thresholds: tuple[Threshold, ...] = ()
    actions: tuple[Literal["alert", "log", "trigger_regen"], ...] = ("log",)


class Event(_Part, frozen=True, kw_only=True):
    """One kind of event."""

    name: str
    version: int = 1
    semantics: Semantics
    privacy: Literal["public", "internal", "pii", "sensitive"] = "internal"
    properties: dict[str, Property]
    retention: Retention | None = None
    sampling: Sampling | None = None
    anomaly_detection: AnomalyDetection | None = None
    rank: int = 0
    """What it is worth where there is no room for all, 0 to 9: the lowest go first. One that adds up others is worth
    more than each of them."""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.version < 1:
            raise ValueError(f"found version {self.version}; expected 1 or more")
        if not 0 <= self.rank <= 9:
            raise ValueError(f"found rank {self.rank}; expected 0 to 9")
        for name in (self.name, *self.properties):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name; expected letters, digits and $ _ . - only")
        for name in self.properties:
            if name in BASE:
                raise ValueError(f"property {name!r} is a base field that every event has")

    def shared_at(self, level: Level | None) -> bool:
        """Whether the event has any field of its own to share at ``level``."""
        return any(prop.shared_at(level) for prop in self.properties.values())


class Meta(_Part, frozen=True, kw_only=True):
    """Who owns a spec, and its identity: ``name`` and ``version``."""

    name: str
    version: int = 1
    title: str = ""
    description: str = ""
    domain: str = ""
    owners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    stability: Literal["idea", "in_creation", "experimental", "beta", "stable", "deprecated"] = "experimental"

    def __post_init__(self) -> None:
        if len(self.name) > 100 or not re.fullmatch(_WORD, self.name):
            raise ValueError(f"{self.name!r} is no name; expected at most 100 letters, digits and . _ + -")
        if not 1 <= self.version < 10**6:
            raise ValueError(f"found version {self.version}; expected 1 to 999999")


class Provider(_Part, frozen=True, kw_only=True):
    """Where the spec's authors send its events: documentation and defaults; a spec never redirects anything."""

    type: Literal["posthog", "segment", "opentelemetry", "internal"]
    config: dict[str, Any] = field(default_factory=dict)


class Config(_Part, frozen=True, kw_only=True):
    """Defaults for the events of a spec."""

    default_retention_days: int = 90
    default_sampling_rate: float = 1.0
    providers: tuple[Provider, ...] = ()
    anomaly_detection: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.default_sampling_rate <= 1:
            raise ValueError(f"found a sampling rate of {self.default_sampling_rate:g}; expected 0 to 1")
        if self.default_retention_days < 1:
            raise ValueError(f"found {self.default_retention_days} days; expected 1 or more")


class Outcome(_Part, frozen=True, kw_only=True):
    """The event that one outcome of an operation emits, and where its properties come from."""

    event: str
    version: int = 1
    properties: dict[str, str] = field(default_factory=dict)
    """Property ← path into ``input``, ``output`` or ``error``."""


class Operation(_Part, frozen=True, kw_only=True):
    """An operation that emits an event when it succeeds or fails."""

    name: str
    success: Outcome | None = None
    failure: Outcome | None = None


class TelemetrySpec(_Part, frozen=True, kw_only=True):
    """One spec. ``ref`` is what frames, bodies and servers call it."""

    meta: Meta
    events: tuple[Event, ...] = ()
    operations: tuple[Operation, ...] = ()
    config: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        seen: set[tuple[str, int]] = set()
        for event in self.events:
            if (event.name, event.version) in seen:
                raise ValueError(f"event {event.name!r} version {event.version} is declared twice")
            seen.add((event.name, event.version))
        for operation in self.operations:
            for outcome in (operation.success, operation.failure):
                if outcome and (outcome.event, outcome.version) not in seen:
                    raise ValueError(f"operation {operation.name!r} emits {outcome.event!r}, which is not declared")

    @property
    def ref(self) -> str:
        """Name and version, such as ``cmdorc.core@1``."""
        return f"{self.meta.name}@{self.meta.version}"

    def event(self, name: str, version: int | None = None) -> Event | None:
        """The event of that name; the latest version where none is given."""
        found = [event for event in self.events if event.name == name and version in (None, event.version)]
        return max(found, key=lambda event: event.version, default=None)

    def sampling_rate(self, event: Event) -> float:
        """The share of ``event`` that is shared, 0 to 1."""
        return event.sampling.rate if event.sampling else self.config.default_sampling_rate

    def retention_days(self, event: Event) -> int:
        """For how many days a server may keep ``event``."""
        return event.retention.days if event.retention else self.config.default_retention_days

    def declaration(self, event: Event, name: str) -> str:
        """All that a person agrees to when they agree to a field: equal texts need no new consent."""
        base = name in BASE
        prop = BASE[name] if base else event.properties[name]
        bounds = {key: value for key, value in msgspec.to_builtins(prop).items() if key != "description"}
        why = {} if base else {"why": event.semantics.why, "retention_days": self.retention_days(event)}
        return msgspec.json.encode({**bounds, **why}, order="sorted").decode()


def bucket_labels(edges: tuple[float, ...]) -> tuple[str, ...]:
    """The names of the ranges between ``edges``, such as ``<1``, ``1-10``, ``>=10``."""
    names = [f"{edge:.15g}" for edge in edges]
    return (f"<{names[0]}", *(f"{low}-{high}" for low, high in pairwise(names)), f">={names[-1]}")


BASE: dict[str, Property] = {
    "event": Property(type="string", pattern=_NAME.pattern, max_length=100, level="minimal",
                      description="Name of the event"),
    "cmdorc_version": Property(type="version", level="minimal", description="Version of cmdorc"),
    "app_name": Property(type="string", pattern=_WORD, max_length=64, level="minimal",
                         description="The application, where it is not cmdorc"),
    "app_version": Property(type="version", level="minimal", description="Its version"),
    "python_version": Property(type="version", level="minimal", description="Python, major.minor"),
    "os": Property(type="enum", members=("linux", "darwin", "windows", "freebsd"), level="minimal",
                   description="Operating system"),
    "arch": Property(type="enum", members=("x86_64", "arm64", "i686", "armv7l", "ppc64le", "riscv64", "s390x"),
                     level="minimal", description="Processor architecture"),
    "anonymous_install_id": Property(type="uuid", level="minimal",
                                     description="Random, made at opt-in, deleted at opt-out"),
    "timestamp": Property(type="timestamp", level="minimal", description="UTC, whole seconds"),
    "event_id": Property(type="uuid", level="minimal", description="Random; lets a server count an event once"),
    "spec": Property(type="string", pattern=_WORD + r"@[0-9]{1,6}", max_length=120, level="minimal",
                     description="The spec that declares the event"),
    "level": Property(type="enum", members=LEVELS, level="minimal", description="The level it was shared at"),
    "sampling_rate": Property(type="number", min=0, max=1, level="minimal",
                              description="The share of such events that is sent, where below 1"),
}  # fmt: skip
"""The fields that every event has beside its own."""

# Two threads that are the first to use a type at the same time crash msgspec (0.22): it is complete from here on.
msgspec.json.Decoder(TelemetrySpec)
